//! Randomness from the seed, for the simulation and for requests to the system.
//!
//! The standard library keys its hash maps with `getrandom`, and through them tokio the order in which `select!`
//! looks at its branches; connection ids come from there, too. So this program has a `getrandom` of its own,
//! which answers from the seed on the threads of a simulation. What asks the kernel by another way (ring: keys,
//! transfer ids) stays random; it decides contents of packets, not their sizes nor their times.

use std::cell::RefCell;

use testlink::Rng;

/// From now on what this thread asks of the system's randomness comes from this seed.
pub(crate) fn seed_thread(seed: u64) {
    SEEDED.set(Some(Rng::new(seed)));
}

thread_local! {
    static SEEDED: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// In place of the C library's.
#[expect(unsafe_code, reason = "it has to have that name, and it is given a pointer")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller of `getrandom` owns that many bytes there.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    fill(buffer);
    len.cast_signed()
}

fn fill(buffer: &mut [u8]) {
    let seeded = SEEDED.try_with(|rng| rng.borrow_mut().as_mut().map(|rng| rng.fill(buffer)));
    if let Ok(Some(())) = seeded {
        return;
    }
    let mut filled = 0;
    while filled < buffer.len() {
        // Straight from the kernel, not through the function above.
        filled += rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())
            .unwrap_or_default();
    }
}
