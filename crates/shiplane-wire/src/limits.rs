//! Every bound of the protocol, with its reason (SPEC 7).
//!
//! A bound is checked on the few bytes that announce a length, before anything is allocated for it, and
//! travels in the error that reports it.

/// Longest size field a chunk frame can carry: 2^62 - 1 bytes.
///
/// A QUIC stream carries less than 2^62 bytes, so the two top bits of the field are free; they tell a
/// bare chunk from a stream header (SPEC 2.1).
pub const MAX_FRAME_LEN_BYTES: u64 = (1 << 62) - 1;

/// Longest input SHA-256 is defined for: 2^61 - 1 bytes.
///
/// FIPS 180-4 counts the message in 64 bits of *bits*. A longer chunk could be announced but never
/// verified, so it is refused with the size, not after two exabytes.
pub const MAX_HASHED_LEN_BYTES: u64 = (1 << 61) - 1;

/// Longest bare chunk that is taken into memory by default: 1 GiB.
///
/// The receiver of a bare chunk has agreed to nothing beforehand; above this it would have to hold more
/// than a peer may make it hold.
pub const MAX_CHUNK_LEN_BYTES: u64 = 1 << 30;

/// Longest chunk that a transfer cuts its payload into by default: 4 MiB.
///
/// On a fast path: what arrives in an eighth of a second, so that few streams and few acknowledgements are needed and a
/// cut still loses little. On a slow path chunks are as short as 64 KiB.
pub const DEFAULT_PAYLOAD_CHUNK_LEN_BYTES: u64 = 4 << 20;

/// Longest chunk a receiver may ask for in a transfer: 16 MiB.
///
/// The provider holds what it sends only in buffers, but each chunk is a stream it must serve to the
/// end: this bounds the work that one record of the peer can order.
pub const MAX_PAYLOAD_CHUNK_LEN_BYTES: u64 = 16 << 20;

/// Most spans in one chunk: 1,024.
///
/// 24 bytes each, so that a want fits in one record; ten thousand tiny files are still ten chunks.
pub const MAX_SPANS_PER_CHUNK: usize = 1024;

/// Longest body of a record: 64 KiB.
///
/// The largest honest one is an entry with the longest path and as many holes as there may be (49,205 bytes). It is also
/// all that a record reader ever holds back.
pub const MAX_RECORD_LEN_BYTES: u32 = 64 << 10;

/// Most block signatures in one record: 900.
///
/// 36 bytes each; together 32,418 bytes, so that others find room beside it.
pub const MAX_SIGNATURES_PER_RECORD: usize = 900;

/// Shortest average length of content-defined blocks that may be requested: 1 KiB.
///
/// At 36 bytes per block, a list is then at most a sixth as long as what it describes.
pub const MIN_BLOCK_AVERAGE_BYTES: u32 = 1 << 10;

/// Longest average length of content-defined blocks that may be requested: 1 MiB.
///
/// A block is at most four times that, and both sides hold one in memory.
pub const MAX_BLOCK_AVERAGE_BYTES: u32 = 1 << 20;

/// Longest RPC envelope: 1 MiB.
///
/// An envelope is decoded from memory, so its size is memory the peer makes us hold; anything larger
/// belongs in a chunk.
pub const MAX_RPC_FRAME_LEN_BYTES: u32 = 1 << 20;

/// Longest body of a message stream: 1 MiB, for the reason of [`MAX_RPC_FRAME_LEN_BYTES`].
pub const MAX_MESSAGE_LEN_BYTES: u32 = 1 << 20;

/// Longest component of a path: 255 bytes, what the usual file systems hold (`NAME_MAX`).
pub const MAX_COMPONENT_LEN_BYTES: usize = 255;

/// Longest path: 32 KiB.
///
/// Eight times what Linux takes in one call (`PATH_MAX`); a tree whose paths are longer is opened piece by piece. Every
/// entry has its whole path, and counts by its length.
pub const MAX_PATH_LEN_BYTES: usize = 32 << 10;

/// Longest target of a symbolic link: 4,095 bytes, what Linux takes (`PATH_MAX` with its NUL).
pub const MAX_LINK_TARGET_LEN_BYTES: usize = 4095;

/// Longest attributes of an entry: 60 KiB.
///
/// Owners, access lists and extended attributes, all together. An entry with them is at most 64 KiB long, as without.
pub const MAX_ATTRIBUTES_LEN_BYTES: usize = 60 << 10;

/// Most holes of a file that are sent: 1,024.
///
/// 16 bytes each, so that they fit in the record of the entry beside the longest path. Of a file with more of them the
/// longest are told.
pub const MAX_HOLES: usize = 1024;

/// Longest escaped path in a *left out* record: 16 KiB; a longer one is cut.
///
/// Every byte of a path of 4 KiB, as long as most systems take, may need four characters.
pub const MAX_ESCAPED_PATH_LEN_BYTES: usize = 16 << 10;

/// The size of an entry without its path, as counted against the admitted bytes: 512 bytes.
///
/// About what either side keeps of an entry until it is done with it.
pub const ENTRY_COST_BYTES: u64 = 512;

/// How many bytes of entries a provider may send before the receiver admits any: 64 KiB.
///
/// Some hundred entries, so that a small tree costs no round trip; little enough for a server to have it for
/// everybody.
pub const FIRST_ENTRY_BYTES: u64 = 64 << 10;

/// The most that a receiver invites a provider to send unasked (SPEC 4.24).
///
/// 1 MiB: three flights of a connection that begins with 96 KiB. Most files are shorter.
pub const MAX_OFFERED_BYTES: u64 = 1 << 20;

/// The most chunks that may be offered (SPEC 4.24).
///
/// 32: of 64 KiB at most, half full at worst.
pub const MAX_OFFERS: u64 = 32;

/// Most streams of a connection that wait for their transfer to be claimed: 64.
///
/// As many as a peer may have open at once, so that an honest burst ahead of the claim never loses one.
pub const MAX_PARKED_STREAMS: usize = 64;

/// Most digests a `TransferHasher` holds back while an earlier one is missing: 4,096.
///
/// A chunk that is retried lets the others run ahead; sixty-four streams that each finish sixty-four
/// chunks meanwhile still fit, in about 200 KiB.
pub const MAX_DIGEST_GAP: usize = 4096;

/// Longest piece of payload that one step hands out: 256 KiB.
///
/// A step hashes what it hands out. At this size the bytes are still in the cache when the caller
/// writes them, and a step on an async thread takes well under a millisecond.
pub const MAX_STEP_LEN_BYTES: usize = 256 << 10;
