//! Runs one target under libFuzzer: `SHIPLANE_FUZZ_TARGET=NAME shiplane-fuzz [OPTION]... [CORPUS]...`.
//! Without a target it lists them. `cargo xtask fuzz` builds it so that it can see which code is reached.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use shiplane_fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

fuzz_target!(
    init: {
        CHOSEN.get_or_init(choose);
    },
    |data: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(data);
        }
    }
);

fn choose() -> Target {
    let name = std::env::var("SHIPLANE_FUZZ_TARGET").unwrap_or_default();
    if let Some(target) = TARGETS.iter().find(|target| target.name == name) {
        return *target;
    }
    for target in TARGETS {
        println!("{} {}", target.package, target.name);
    }
    std::process::exit(if name.is_empty() { 0 } else { 2 });
}
