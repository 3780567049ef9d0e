//! Any bytes in a line reader: it yields the same lines however the bytes are split. The first byte determines where.
#![no_main]

use forkade::limits::CONSOLE_LINE_BYTES_MAX;
use forkade_text::telnet::{LineEvent, LineReader};
use libfuzzer_sys::fuzz_target;

fn inputs(pieces: &[&[u8]]) -> Vec<LineEvent> {
    let mut reader = LineReader::new(CONSOLE_LINE_BYTES_MAX);
    pieces
        .iter()
        .flat_map(|piece| piece.iter())
        .filter_map(|byte| reader.push(*byte))
        .collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let at = usize::from(*cut).min(stream.len());
    let (first, second) = stream.split_at(at);
    assert_eq!(inputs(&[first, second]), inputs(&[stream]));
});
