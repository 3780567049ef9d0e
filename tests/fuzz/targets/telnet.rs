//! Any bytes in a line reader: it yields the same lines however the bytes are split. The first byte determines where.
#![no_main]

use forkade::limits::CONSOLE_LINE_BYTES_MAX;
use forkade_text::telnet::{Line, LineReader, Parser};
use libfuzzer_sys::fuzz_target;

fn lines(pieces: &[&[u8]]) -> Vec<Line> {
    let mut parser = Parser::default();
    let mut reader = LineReader::new(CONSOLE_LINE_BYTES_MAX);
    let bytes = pieces.iter().flat_map(|piece| piece.iter());
    let events = bytes.filter_map(|byte| parser.push(*byte));
    events.filter_map(|event| reader.push(event)).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let at = usize::from(*cut).min(stream.len());
    let (first, second) = stream.split_at(at);
    assert_eq!(lines(&[first, second]), lines(&[stream]));
});
