//! Decodes any bytes as a frame: decoding neither panics nor exceeds the memory limit, and a decoded message encodes to
//! bytes that decode to the same message.
#![no_main]

use forkade_protocol::{ClientMessage, ServerMessage, codec, frame, limits::FRAME_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = frame::split(bytes, FRAME_BYTES_MAX);
    if let Ok(message) = codec::decode::<ClientMessage>(bytes) {
        let again = codec::encode(&message).expect("a decoded message can be encoded");
        assert_eq!(codec::decode::<ClientMessage>(&again).as_ref(), Ok(&message));
    }
    if let Ok(message) = codec::decode::<ServerMessage>(bytes) {
        let again = codec::encode(&message).expect("a decoded message can be encoded");
        assert_eq!(codec::decode::<ServerMessage>(&again).as_ref(), Ok(&message));
    }
});
