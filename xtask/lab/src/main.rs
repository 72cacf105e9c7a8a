//! Runs a programme of the lab.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    lab::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: the lab needs Linux: network namespaces, /proc, ptrace");
    std::process::exit(1);
}
