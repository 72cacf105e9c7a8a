//! What the system tells of a file's content without its being read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::super::Sizes;

/// The holes of a file of `size_bytes`, in order. Of very many it gives the first.
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
pub fn holes_of(file: &File, size_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    use rustix::fs::SeekFrom;

    let (mut holes, mut at) = (Vec::new(), 0);
    while at < size_bytes && holes.len() < MAX_HOLES_FOUND {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size_bytes),
            // Nothing but a hole follows.
            Err(Errno::NXIO) => size_bytes,
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => break,
            Err(error) => return Err(error.into()),
        };
        if data > at {
            holes.push(at..data);
        }
        at = if data < size_bytes {
            rustix::fs::seek(file, SeekFrom::Hole(data))?.max(data + 1)
        } else {
            data
        };
    }
    Ok(holes)
}

/// Other systems do not tell.
#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
pub fn holes_of(_file: &File, _size_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    Ok(Vec::new())
}

/// Which sizes are those of the content, of files on the file system of `file`.
#[cfg(target_os = "linux")]
pub fn sizes_of(file: &impl AsFd) -> Sizes {
    const FUSE: u32 = 0x6573_5546;
    // As in linux/magic.h: proc, sysfs, debugfs, tracefs, cgroup, cgroup2, securityfs, selinuxfs, configfs, bpf, efivarfs,
    // pstore.
    const KERNELS: [u32; 12] = [
        0x9fa0,
        0x6265_6572,
        0x6462_6720,
        0x7472_6163,
        0x0027_e0eb,
        0x6367_7270,
        0x7363_6673,
        0xf97c_ff8c,
        0x6265_6570,
        0xcafe_4a11,
        0xde5e_81e4,
        0x6165_676c,
    ];
    match rustix::fs::fstatfs(file).map(|stat| stat.f_type as u32) {
        Ok(kind) if KERNELS.contains(&kind) => Sizes::MadeUp,
        // A program that does not know how long its files are calls them empty.
        Ok(FUSE) => Sizes::TrueUnlessEmpty,
        _ => Sizes::True,
    }
}

/// Other systems have no such file systems.
#[cfg(not(target_os = "linux"))]
pub fn sizes_of(_file: &impl AsFd) -> Sizes {
    Sizes::True
}

/// 65,536: 1 MiB of them, of which the longest are told.
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
const MAX_HOLES_FOUND: usize = 1 << 16;
