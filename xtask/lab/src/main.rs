//! The long programmes of `cargo xtask`, which builds and runs this: `sim | crash | races | load | soak | wan | bench`.
//!
//! They share xtask's library (child processes, the driver of the program, data sets, comparison of trees), and here
//! `stats` (a process from outside) and `suspend`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod crash;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod netns;
#[cfg(target_os = "linux")]
mod races;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod simulate;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(target_os = "linux")]
mod stats;
#[cfg(target_os = "linux")]
mod suspend;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: the lab needs Linux: network namespaces, /proc, ptrace");
    std::process::exit(1);
}
