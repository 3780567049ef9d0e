//! A peer's bytes cause neither a panic nor large allocations. This file has only one test, because its allocator
//! counts for the whole process.

use std::hint::black_box;

use forkade_protocol::{
    ClientMessage, ServerMessage, codec,
    limits::{DECODE_BYTES_MAX, FRAME_BYTES_MAX},
};
use peak_alloc::PeakAlloc;
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes that resemble a message more often than random ones: a variant, then integers of all widths.
fn message_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), 0..4_u8, 250..=255_u8];
    let bytes = vec(byte, 0..200);
    (0..16_u8, bytes).prop_map(|(variant, mut bytes)| {
        bytes.insert(0, variant);
        bytes
    })
}

#[test]
fn hostile_bytes_neither_panic_nor_allocate_beyond_the_limit() {
    // Text and bytes count towards the decode limit. Lists in a server's messages grow with the received elements: at
    // most one element of 32 bytes for each byte of the frame, and as much spare capacity again while they grow.
    let client_bytes_max = DECODE_BYTES_MAX;
    let server_bytes_max = DECODE_BYTES_MAX + 3 * 32 * FRAME_BYTES_MAX;
    let mut runner = TestRunner::new(ProptestConfig::with_cases(20_000));
    let result = runner.run(&message_like_bytes(), |bytes| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let _ = black_box(codec::decode::<ClientMessage>(&bytes));
        let client = MEMORY.peak_usage() - before;
        MEMORY.reset_peak_usage();
        let _ = black_box(codec::decode::<ServerMessage>(&bytes));
        let server = MEMORY.peak_usage() - before;
        prop_assert!(
            client <= client_bytes_max,
            "{client} bytes for a client's message"
        );
        prop_assert!(
            server <= server_bytes_max,
            "{server} bytes for a server's message"
        );
        Ok(())
    });
    result.expect("every case passes");
}
