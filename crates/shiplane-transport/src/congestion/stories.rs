//! What the controller does on a path, told in virtual time.

use std::time::{Duration, Instant};

use super::{
    path_model::{Link, MTU, Model, Supply},
    steering::Steering,
};

#[test]
fn random_loss_costs_no_throughput() {
    for loss in [0.0, 0.001, 0.01, 0.03] {
        for link in [Link::new(100.0, 50.0), Link::new(100.0, 200.0), Link::new(20.0, 20.0)] {
            let mut model = Model::with_flow(link.loss(loss));
            model.run(3.0);
            let share = model.utilisation(10.0);
            assert!(share >= 0.93 * (1.0 - loss), "{link:?} at a loss of {loss}: {share}");
        }
    }
}

#[test]
fn the_queue_is_short() {
    for loss in [0.0, 0.01] {
        let mut model = Model::with_flow(Link::new(100.0, 50.0).loss(loss));
        // A newcomer lifts its window a few times.
        model.run(6.0);
        let queue = model.worst_queue(20.0);
        assert!(queue < 0.35, "{queue} base RTTs at a loss of {loss}");
    }
}

#[test]
fn the_path_is_full_after_few_round_trips() {
    let mut model = Model::with_flow(Link::new(100.0, 100.0));
    model.run(0.8);
    let share = model.utilisation(0.2);
    assert!(share > 0.9, "{share} in the ninth and tenth round trip");
}

#[test]
fn starting_spills_little_of_a_queue_of_one_product() {
    let mut model = Model::with_flow(Link::new(100.0, 100.0));
    model.run(3.0);
    let flow = &model.flows[0];
    assert!(flow.lost_packets * 100 < flow.sent_packets, "{} of {}", flow.lost_packets, flow.sent_packets);
}

#[test]
fn a_short_queue_is_not_flooded() {
    let mut model = Model::with_flow(Link::new(100.0, 50.0).queue(0.05));
    model.run(2.0);
    let (sent, lost) = (model.flows[0].sent_packets, model.flows[0].lost_packets);
    let share = model.utilisation(10.0);
    let (sent, lost) = (model.flows[0].sent_packets - sent, model.flows[0].lost_packets - lost);
    assert!(share > 0.9, "{share}");
    assert!(lost * 20 < sent, "{lost} of {sent} lost");
}

/// A gigabit Ethernet switch holds less than two milliseconds' worth.
#[test]
fn a_local_network_of_small_buffers_is_not_flooded() {
    for queue in [0.5, 1.0, 2.0] {
        let mut model = Model::with_flow(Link::new(1000.0, 1.0).queue(queue));
        model.run(0.5);
        let (sent, lost) = (model.flows[0].sent_packets, model.flows[0].lost_packets);
        let share = model.utilisation(2.0);
        let (sent, lost) = (model.flows[0].sent_packets - sent, model.flows[0].lost_packets - lost);
        assert!(share > 0.95, "{share}");
        assert!(lost * 25 < sent, "{lost} of {sent} lost at a queue of {queue} products");
    }
}

#[test]
fn equal_flows_get_equal_shares() {
    for loss in [0.0, 0.005] {
        let mut model = Model::with_flow(Link::new(100.0, 50.0).loss(loss));
        model.run(5.0);
        model.add_flow(Supply::Endless);
        model.run(15.0);
        let rates = model.run(20.0);
        let ratio = rates[0] / rates[1];
        assert!((0.6..1.7).contains(&ratio), "{rates:?} at a loss of {loss}");
        assert!(rates.iter().sum::<f64>() > 0.9 * model.link.bytes_per_sec(), "{rates:?}");
    }
}

#[test]
fn beside_tcp_the_shares_are_fair() {
    for (link, tcp_first) in [
        (Link::new(100.0, 50.0), true),
        (Link::new(100.0, 50.0), false),
        (Link::new(50.0, 100.0), true),
        (Link::new(50.0, 100.0), false),
    ] {
        let mut model = Model::new(link);
        let (ours, tcp) = if tcp_first {
            let tcp = model.add_tcp();
            model.run(10.0);
            (model.add_flow(Supply::Endless), tcp)
        } else {
            let ours = model.add_flow(Supply::Endless);
            model.run(10.0);
            (ours, model.add_tcp())
        };
        model.run(10.0);
        let rates = model.run(40.0);
        let ratio = rates[ours] / rates[tcp];
        assert!((0.5..2.0).contains(&ratio), "{ratio} beside TCP on {link:?}, TCP first: {tcp_first}");
    }
}

#[test]
fn when_tcp_has_gone_the_queue_goes_too() {
    let mut model = Model::with_flow(Link::new(100.0, 50.0));
    let tcp = model.add_tcp();
    model.run(20.0);
    model.set_supply(tcp, Supply::Silent);
    model.run(10.0);
    let queue = model.worst_queue(10.0);
    assert!(queue < 0.35, "{queue}");
    let share = model.utilisation(5.0);
    assert!(share > 0.9, "{share}");
}

#[test]
fn a_path_that_becomes_faster_is_filled_again() {
    let mut model = Model::with_flow(Link::new(50.0, 50.0).loss(0.001));
    model.run(5.0);
    model.link.rate_mbit = 200.0;
    model.run(1.5);
    let share = model.utilisation(3.0);
    assert!(share > 0.85, "{share}");
}

/// Whatever else is sent meets that queue, calls above all.
#[test]
fn a_path_of_microseconds_keeps_a_queue_of_less_than_a_millisecond() {
    let link = Link::new(8000.0, 0.05).queue(1000.0);
    let mut model = Model::with_flow(link);
    model.run(0.5);
    let share = model.utilisation(0.5);
    assert!(share > 0.95, "{share}");
    let queue_ms = model.worst_queue(0.5) * link.rtt_ms;
    assert!(queue_ms < 1.0, "{queue_ms}");
}

#[test]
fn a_path_that_becomes_slower_is_not_flooded_for_long() {
    let mut model = Model::with_flow(Link::new(200.0, 50.0));
    model.run(5.0);
    model.link.rate_mbit = 50.0;
    model.run(3.0);
    let share = model.utilisation(2.0);
    assert!(share > 0.9, "{share}");
    let queue = model.worst_queue(4.0);
    assert!(queue < 0.6, "{queue}");
}

#[test]
fn a_path_that_becomes_longer_stays_full() {
    let mut model = Model::with_flow(Link::new(100.0, 50.0));
    model.run(5.0);
    model.link.rtt_ms = 100.0;
    model.run(5.0);
    let share = model.utilisation(20.0);
    assert!(share > 0.85, "{share}");
}

#[test]
fn a_path_that_becomes_shorter_gets_a_short_queue() {
    let mut model = Model::with_flow(Link::new(100.0, 100.0));
    model.run(5.0);
    model.link.rtt_ms = 50.0;
    // Until the next probe.
    model.run(15.0);
    let queue = model.worst_queue(5.0);
    assert!(queue < 0.3, "{queue}");
}

#[test]
fn a_quiet_application_does_not_shrink_the_window_nor_inflate_it() {
    let link = Link::new(100.0, 50.0);
    let mut model = Model::with_flow(link);
    model.run(5.0);
    let before = model.flows[0].window_bytes();
    // A tenth of the path.
    model.set_supply(0, Supply::Trickle(12_500));
    model.run(10.0);
    let after = model.flows[0].window_bytes() as f64;
    assert!(after > 0.7 * before as f64 && after < 1.3 * link.bdp(), "{before} then {after}");
}

#[test]
fn after_a_pause_the_path_is_full_at_once() {
    let mut model = Model::with_flow(Link::new(100.0, 50.0).loss(0.001));
    model.run(5.0);
    model.set_supply(0, Supply::Silent);
    model.run(20.0);
    model.set_supply(0, Supply::Endless);
    model.run(0.15);
    let share = model.utilisation(1.0);
    assert!(share > 0.85, "{share}");
}

#[test]
fn a_dead_path_starts_over_small() {
    let now = Instant::now();
    let mut control = Steering::new(now, MTU as u16);
    let start = control.window_bytes();
    let later = now + Duration::from_millis(10);
    for _ in 0..500 {
        control.acked(now, MTU, false);
    }
    control.acks_end(later, 0);
    assert!(control.window_bytes() > start);
    control.path_died(later + Duration::from_secs(3));
    assert_eq!(control.window_bytes(), start);
}

#[test]
fn an_mtu_probe_leaves_room_beside_it() {
    let now = Instant::now();
    let mut control = Steering::new(now, MTU as u16);
    for second in 1..100 {
        let at = now + Duration::from_secs(second);
        control.sent(at);
        control.marked(at, at);
    }
    assert!(control.window_bytes() > 8952 + 8 * MTU, "{}", control.window_bytes());
}
#[test]
fn the_queue_of_start_up_drains_without_a_gap() {
    let mut model = Model::with_flow(Link::new(200.0, 50.0));
    // Start-up has filled the path by now.
    model.run(0.3);
    for half_round in 0..16 {
        let share = model.utilisation(0.025);
        assert!(share > 0.95, "{share} in half round {half_round}");
    }
}
