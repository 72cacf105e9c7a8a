//! Codes between real connections, and between ones that somebody in the middle relays.

#[cfg(test)]
mod codes;
