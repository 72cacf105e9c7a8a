//! The result of a transfer, in a short and a detailed form.

use std::{net::SocketAddr, time::Duration};

/// One finished transfer, in short.
#[derive(Debug, Clone)]
pub struct TransferResult {
    /// Address of the peer.
    pub peer: SocketAddr,

    /// Whether the transfer succeeded.
    pub success: bool,

    /// Number of payload bytes transferred.
    pub bytes_transferred: u64,

    /// Whether the receiver's digest matched the sender's: for what was sent, because the peer said so
    /// with status 0; for what was received, because this side computed it.
    pub checksum_verified: bool,

    /// How long the transfer took.
    pub duration: Duration,

    /// Error message if the transfer failed.
    pub error: Option<String>,
}

impl TransferResult {
    /// A transfer whose checksum was verified. Call it with that evidence only: a chunk sent and
    /// answered with status 0, or a chunk received.
    #[must_use]
    pub fn success(peer: SocketAddr, bytes: u64, duration: Duration) -> Self {
        Self { peer, success: true, bytes_transferred: bytes, checksum_verified: true, duration, error: None }
    }

    /// A transfer that failed. Whether the receiver has the data all the same, and what it cost, is in
    /// a [`TransferReport`].
    #[must_use]
    pub fn failure(peer: SocketAddr, error: String) -> Self {
        Self {
            peer,
            success: false,
            bytes_transferred: 0,
            checksum_verified: false,
            duration: Duration::ZERO,
            error: Some(error),
        }
    }
}

/// One finished transfer in detail.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransferReport {
    /// The short form. Its duration covers all attempts, of a failure too.
    pub result: TransferResult,
    /// Which way the data went.
    pub direction: Direction,
    /// What is known of the receiver.
    pub delivery: Delivery,
    /// How often it was tried; 1 is once.
    pub attempts: u32,
    /// Whether it went in a call, in one round trip; else it was sent as a chunk.
    pub by_call: bool,
    /// Payload bytes of the attempt that succeeded as they were sent: fewer than the result's if they
    /// were compressed, none if the receiver had them from an earlier attempt.
    pub wire_bytes: u64,
}

/// Which way data went, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

impl Direction {
    /// A word for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// What is known of the receiver after a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// It has the data, verified.
    Verified,
    /// It does not have the data: it refused, or never saw all of it.
    Rejected,
    /// Its answer was lost. It may have the data; only sending it again under the same transfer id can
    /// tell.
    Unknown,
}

impl TransferReport {
    /// A transfer that succeeded at the first attempt, uncompressed.
    #[must_use]
    pub fn verified(direction: Direction, peer: SocketAddr, bytes: u64, duration: Duration) -> Self {
        let result = TransferResult::success(peer, bytes, duration);
        Self {
            result,
            direction,
            delivery: Delivery::Verified,
            attempts: 1,
            by_call: false,
            wire_bytes: bytes,
        }
    }

    /// A transfer that failed at the first attempt.
    #[must_use]
    pub fn failed(
        direction: Direction,
        peer: SocketAddr,
        delivery: Delivery,
        error: &dyn std::error::Error,
        duration: Duration,
    ) -> Self {
        let result = TransferResult { duration, ..TransferResult::failure(peer, error.to_string()) };
        Self { result, direction, delivery, attempts: 1, by_call: false, wire_bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_six_fields_and_only_success_is_verified() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 7514));
        let written = TransferResult {
            peer,
            success: true,
            bytes_transferred: 5,
            checksum_verified: true,
            duration: Duration::from_millis(3),
            error: None,
        };
        let made = TransferResult::success(peer, 5, Duration::from_millis(3));
        assert_eq!(format!("{made:?}"), format!("{written:?}"));
        let failed = TransferResult::failure(peer, "no route".to_owned());
        assert!(!failed.success && !failed.checksum_verified && failed.bytes_transferred == 0);
        assert_eq!(failed.error.as_deref(), Some("no route"));
    }

    #[test]
    fn a_report_of_a_failure_keeps_duration_and_delivery() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 7514));
        let took = Duration::from_secs(2);
        let error = std::io::Error::other("the answer was lost");
        let report = TransferReport::failed(Direction::Sent, peer, Delivery::Unknown, &error, took);
        assert_eq!((report.delivery, report.result.duration), (Delivery::Unknown, took));
        assert!(!report.result.success && !report.result.checksum_verified);
        let report = TransferReport::verified(Direction::Received, peer, 9, took);
        assert_eq!((report.delivery, report.attempts, report.wire_bytes), (Delivery::Verified, 1, 9));
        assert!(report.result.success && report.result.checksum_verified);
    }
}
