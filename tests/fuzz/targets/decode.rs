//! Any bytes as a frame: decoding neither panics nor takes more memory than the limit, and what was decoded encodes to the same bytes.
#![no_main]

use forkade_protocol::{ClientMessage, ServerMessage, codec, frame, limits::FRAME_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = frame::split(bytes, FRAME_BYTES_MAX);
    if let Ok(message) = codec::decode::<ClientMessage>(bytes) {
        let again = codec::encode(&message).expect("what was decoded can be encoded");
        assert_eq!(codec::decode::<ClientMessage>(&again).as_ref(), Ok(&message));
    }
    if let Ok(message) = codec::decode::<ServerMessage>(bytes) {
        let again = codec::encode(&message).expect("what was decoded can be encoded");
        assert_eq!(codec::decode::<ServerMessage>(&again).as_ref(), Ok(&message));
    }
});
