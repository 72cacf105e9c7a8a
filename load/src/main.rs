//! Peers that overload a server, or lie to one: see the library.

fn main() -> Result<(), shiplane_load::Failure> {
    shiplane_load::run()
}
