//! Sorts stack samples into categories of work.

use super::stacks::Frame;

/// What a sample counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    Blake3,
    Sha256,
    Aes,
    Copies,
    Quic,
    Tokio,
    Ours,
    Other,
    KernelCopies,
    FileWrite,
    FileRead,
    Udp,
    Scheduling,
    Memory,
    Kernel,
}

impl Category {
    /// In the order of the table.
    pub(super) const ALL: [Self; 15] = [
        Self::Blake3,
        Self::Sha256,
        Self::Aes,
        Self::Copies,
        Self::Quic,
        Self::Tokio,
        Self::Ours,
        Self::Other,
        Self::KernelCopies,
        Self::FileWrite,
        Self::FileRead,
        Self::Udp,
        Self::Scheduling,
        Self::Memory,
        Self::Kernel,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "BLAKE3",
            Self::Sha256 => "SHA-256",
            Self::Aes => "AES-GCM",
            Self::Copies => "copies in memory",
            Self::Quic => "QUIC (quinn, rustls)",
            Self::Tokio => "tokio",
            Self::Ours => "shiplane",
            Self::Other => "other",
            Self::KernelCopies => "kernel: copies from and to programs",
            Self::FileWrite => "kernel: files written",
            Self::FileRead => "kernel: files read",
            Self::Udp => "kernel: UDP",
            Self::Scheduling => "kernel: threads put to sleep and woken",
            Self::Memory => "kernel: memory mapped and faulted in",
            Self::Kernel => "kernel: other",
        }
    }

    /// What a stack counts as: the first of its names, from the innermost on, that says something. So an allocator's
    /// time is that of who called it. In the kernel nothing outside of it counts.
    pub(super) fn of(stack: &[Frame]) -> Self {
        let in_kernel = stack.first().is_some_and(|innermost| innermost.is_kernel);
        let same_side = stack.iter().take_while(|frame| !in_kernel || frame.is_kernel);
        let nothing = if in_kernel { Self::Kernel } else { Self::Other };
        same_side.into_iter().find_map(Self::of_frame).unwrap_or(nothing)
    }

    /// What a name alone says.
    pub(super) fn of_frame(frame: &Frame) -> Option<Self> {
        let rules = if frame.is_kernel { KERNEL } else { PROGRAM };
        let says = |sign: &Sign| match *sign {
            Has(word) => frame.name.contains(word),
            Begins(word) => frame.name.starts_with(word),
        };
        rules.iter().find(|(_, signs)| signs.iter().any(says)).map(|(category, _)| *category)
    }
}

/// How a name shows what it is about.
enum Sign {
    Has(&'static str),
    Begins(&'static str),
}

use Sign::{Begins, Has};

type Rules = &'static [(Category, &'static [Sign])];

/// The first that holds counts.
const PROGRAM: Rules = &[
    (Category::Blake3, &[Has("blake3")]),
    (Category::Sha256, &[Has("sha256"), Has("Sha256"), Begins("ring::digest")]),
    (Category::Aes, &[Has("aes_"), Has("_aes"), Has("ghash"), Has("gcm_"), Begins("ring::aead")]),
    (Category::Copies, &[Has("memcpy"), Has("memmove"), Has("memset")]),
    (Category::Quic, &[Begins("quinn"), Begins("rustls")]),
    (Category::Tokio, &[Begins("tokio"), Begins("mio")]),
    (Category::Ours, &[Begins("shiplane")]),
];

/// A write that wakes a thread is about waking: whatever is called by others stands before its callers.
const KERNEL: Rules = &[
    (
        Category::KernelCopies,
        &[
            Has("copy_to_iter"),
            Has("copy_from_iter"),
            Has("copy_folio"),
            Has("copy_page_to_iter"),
            Has("copy_page_from_iter"),
            Has("copy_user"),
            Has("rep_movs"),
        ],
    ),
    (
        Category::Scheduling,
        &[
            Has("futex"),
            Has("schedule"),
            Has("task_switch"),
            Has("wake_up"),
            Has("eventfd"),
            Begins("ep_"),
            Has("epoll"),
            Has("nanosleep"),
        ],
    ),
    (
        Category::Udp,
        &[Has("udp"), Has("skb"), Has("sendmsg"), Has("recvmsg"), Has("recvmmsg"), Has("net_rx_action")],
    ),
    (
        Category::Memory,
        &[Has("page_fault"), Has("_mmap"), Has("munmap"), Has("madvise"), Has("mprotect"), Has("sys_brk")],
    ),
    (
        Category::FileWrite,
        &[
            Has("vfs_write"),
            Has("pwrite"),
            Has("file_write"),
            Has("perform_write"),
            Has("fallocate"),
            Has("fsync"),
        ],
    ),
    (Category::FileRead, &[Has("vfs_read"), Has("pread"), Has("file_read"), Has("filemap_read")]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Names from the innermost on; the kernel's begin with `k:`.
    fn of(names: &[&str]) -> Category {
        let frame = |name: &&str| {
            let kernel = name.strip_prefix("k:");
            Frame { name: kernel.unwrap_or(name).to_owned(), is_kernel: kernel.is_some() }
        };
        Category::of(&names.iter().map(frame).collect::<Vec<_>>())
    }

    #[test]
    fn work_is_told_by_its_name() {
        assert_eq!(
            of(&["ring_core_0_17_14__sha256_block_data_order_hw", "shiplane_wire::internals::digest"]),
            Category::Sha256
        );
        assert_eq!(of(&["blake3_hash_many_avx512", "shiplane_wire::internals::digest"]), Category::Blake3);
        assert_eq!(of(&["blake3::hazmat::merge_subtrees_inner"]), Category::Blake3);
        assert_eq!(of(&["ring_core_0_17_14__aes_gcm_enc_update_vaes_avx2"]), Category::Aes);
        assert_eq!(of(&["__memmove_avx512_unaligned_erms", "quinn_proto::connection"]), Category::Copies);
        assert_eq!(of(&["tokio::runtime::park", "shiplane_cli::main"]), Category::Tokio);
        assert_eq!(of(&["shiplane_transport::internals::lane::send"]), Category::Ours);
    }

    #[test]
    fn what_says_nothing_counts_as_who_called_it() {
        assert_eq!(
            of(&["malloc", "alloc::vec::Vec::with_capacity", "quinn_proto::connection"]),
            Category::Quic
        );
        assert_eq!(of(&["malloc", "", "start_thread"]), Category::Other);
        assert_eq!(of(&[]), Category::Other);
    }

    #[test]
    fn the_kernel_is_told_by_what_it_does_and_not_by_who_called_it() {
        let outside = ["write", "shiplane_files::internals::writer"];
        let inside = |names: &[&'static str]| of(&[names, &outside[..]].concat());
        assert_eq!(
            inside(&["k:rep_movs_alternative", "k:copy_page_from_iter_atomic", "k:vfs_write"]),
            Category::KernelCopies
        );
        assert_eq!(inside(&["k:_copy_to_iter", "k:udp_recvmsg"]), Category::KernelCopies);
        assert_eq!(
            inside(&["k:shmem_get_folio", "k:generic_perform_write", "k:vfs_write"]),
            Category::FileWrite
        );
        assert_eq!(
            inside(&["k:filemap_get_entry", "k:shmem_file_read_iter", "k:vfs_read"]),
            Category::FileRead
        );
        assert_eq!(inside(&["k:eventfd_write", "k:vfs_write"]), Category::Scheduling);
        assert_eq!(
            inside(&["k:try_to_wake_up", "k:sock_def_readable", "k:udp_recvmsg"]),
            Category::Scheduling
        );
        assert_eq!(inside(&["k:net_rx_action", "k:do_softirq", "k:vfs_write"]), Category::Udp);
        assert_eq!(inside(&["k:clear_page", "k:asm_exc_page_fault"]), Category::Memory);
        assert_eq!(inside(&["k:apic_timer_interrupt"]), Category::Kernel);
    }

    #[test]
    fn each_category_stands_in_the_table_once() {
        let names: std::collections::BTreeSet<&str> =
            Category::ALL.iter().map(|category| category.name()).collect();
        assert_eq!(names.len(), Category::ALL.len());
    }
}
