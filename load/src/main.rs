//! Runs peers that overload a server or lie to it.

fn main() -> Result<(), shiplane_load::Failure> {
    shiplane_load::run()
}
