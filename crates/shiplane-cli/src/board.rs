//! Shows the connections and jobs of a server on a terminal, a line each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shiplane::{Event, PeerId, Phase, Server};

use crate::logging::set_bar;
use crate::progress::count;

/// The lines below everything that is printed. They disappear with this.
pub(crate) struct SessionBoard {
    lines: MultiProgress,
    head: ProgressBar,
    /// As many as are shown.
    sessions: Vec<ProgressBar>,
}

impl SessionBoard {
    pub(crate) fn new() -> Self {
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let head = lines.add(line());
        set_bar(Some(head.clone()));
        Self { lines, head, sessions: Vec::new() }
    }

    /// Draws the server's sessions anew each second.
    pub(crate) async fn watch(&mut self, server: &Server) -> Infallible {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let sessions = server.sessions();
            self.head.set_message(head(sessions.len()));
            self.draw(&texts(&sessions));
        }
    }

    fn draw(&mut self, texts: &[String]) {
        while self.sessions.len() > texts.len() {
            if let Some(gone) = self.sessions.pop() {
                gone.finish_and_clear();
                self.lines.remove(&gone);
            }
        }
        while self.sessions.len() < texts.len() {
            self.sessions.push(self.lines.add(line()));
        }
        for (line, text) in self.sessions.iter().zip(texts) {
            line.set_message(text.clone());
        }
    }
}

impl Drop for SessionBoard {
    fn drop(&mut self) {
        self.draw(&[]);
        self.head.finish_and_clear();
        set_bar(None);
    }
}

/// A line that is cut to the width of the terminal.
fn line() -> ProgressBar {
    // The template is a constant.
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new_spinner().with_style(style)
}

fn head(peers: usize) -> String {
    if peers == 0 {
        "no peer connected".to_owned()
    } else {
        format!("{} connected", count(peers as u64, "peer"))
    }
}

/// One for each job, and for each peer without any.
fn texts(sessions: &[(PeerId, SocketAddr, Vec<Event>)]) -> Vec<String> {
    let mut texts = Vec::new();
    for (peer, addr, jobs) in sessions {
        if jobs.is_empty() {
            texts.push(format!("{} idle, from {addr}", peer.short()));
        }
        texts.extend(jobs.iter().map(|job| format!("{} {}", peer.short(), of_job(job))));
    }
    if texts.len() > MAX_LINES {
        let more = texts.len() - (MAX_LINES - 1);
        texts.truncate(MAX_LINES - 1);
        texts.push(format!("and {more} more"));
    }
    texts
}

/// What a peer does, where, how much has moved, and how fast.
fn of_job(job: &Event) -> String {
    let verb = match job.phase {
        Phase::Sending => "get",
        Phase::Receiving => "push",
        _ => "sync",
    };
    let path = job.path.as_deref().filter(|path| !path.is_empty()).unwrap_or(".");
    let moved = BinaryBytes(job.bytes_done);
    let total = job.bytes_total.map_or_else(String::new, |total| format!("/{}", BinaryBytes(total)));
    let limit = job.limited_by.map_or_else(String::new, |limit| format!(", limited by {limit}"));
    format!("{verb} {moved}{total} {}/s {path}{limit}", BinaryBytes(job.bytes_per_second))
}

/// 1 s: a line that changes faster cannot be read.
const INTERVAL: Duration = Duration::from_secs(1);

/// 10: on a small terminal the ticket above stays in sight.
const MAX_LINES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_for_each_peer_and_never_too_many() {
        let addr: SocketAddr = "192.0.2.7:1".parse().unwrap();
        let peer = PeerId::from_bytes([7; 32]);
        let many: Vec<_> = (0..30).map(|_| (peer, addr, Vec::new())).collect();
        let short = peer.short();
        assert_eq!(texts(&many[..1]), [format!("{short} idle, from 192.0.2.7:1")]);
        let texts = texts(&many);
        assert_eq!((texts.len(), texts.last().map(String::as_str)), (MAX_LINES, Some("and 21 more")));
        assert_eq!(
            (head(0).as_str(), head(1).as_str(), head(2).as_str()),
            ("no peer connected", "1 peer connected", "2 peers connected")
        );
    }
}
