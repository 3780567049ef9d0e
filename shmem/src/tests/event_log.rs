//! An event log against the list of what has happened.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use crate::event_log::{EntryTooLarge, EventLog, Read};
use crate::tests::{Bench, WORDS, bench};
use crate::transaction::Attachment;

type Log = EventLog<WORDS>;
const READERS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A transaction appends events of these lengths, and is committed or not.
    Append { lengths: Vec<usize>, commits: bool },
    /// A reader looks once.
    Read(usize),
    /// A reader is given a snapshot: it goes on behind the last event.
    Skip(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = proptest::collection::vec(0..=Log::EVENT_BYTES_MAX, 0..3);
    prop_oneof![
        3 => (lengths, proptest::bool::weighted(0.8)).prop_map(|(lengths, commits)| Step::Append { lengths, commits }),
        6 => (0..READERS).prop_map(Step::Read),
        1 => (0..READERS).prop_map(Step::Skip),
    ]
}

/// An entry of the model's log.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    offset: u64,
    next: u64,
    audience: u32,
    event: Vec<u8>,
}

/// All that was ever appended, and from where on it can still be read.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<Entry>,
    head: u64,
    tail: u64,
}

impl Model {
    /// Appends the events to the real log and to this one. They fit it: one transaction never pushes out its own.
    fn append(
        &mut self,
        attachment: &mut Attachment,
        bench: &'static Bench,
        lengths: &[usize],
        commits: bool,
        all_read: bool,
    ) {
        let (mut entries, mut head) = (self.entries.clone(), self.head);
        let mut tx = attachment.begin(bench);
        let mut appender = bench.log.append(&mut tx, all_read);
        for length in lengths {
            let next = head + 8 + (*length as u64).next_multiple_of(8);
            if next - self.head > Log::BYTES {
                break;
            }
            let number = u32::try_from(entries.len() + 1).expect("few");
            assert_eq!(appender.next_number(), u64::from(number));
            let event = vec![number.to_le_bytes()[0]; *length];
            appender.push(&mut tx, number, &event).expect("short enough");
            entries.push(Entry {
                offset: head,
                next,
                audience: number,
                event,
            });
            // What is in the way goes for good.
            let oldest = entries
                .iter()
                .map(|entry| entry.offset)
                .find(|offset| next - offset <= Log::BYTES);
            self.tail = self.tail.max(oldest.unwrap_or(next));
            head = next;
        }
        if all_read {
            self.tail = self.tail.max(self.head);
        }
        appender.finish(&mut tx);
        if commits {
            tx.commit().expect("few cells fit the journal");
            (self.entries, self.head) = (entries, head);
        }
    }

    fn read(&self, cursor: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.offset == cursor)
    }
}

proptest! {
    #[test]
    fn readers_get_every_event_in_order_or_are_told_that_they_have_lost_some(
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        let (_, memory, mut attachment) = bench();
        let log = &memory.bench.log;
        let mut model = Model::default();
        let mut cursors = [0; READERS];
        let mut buffer = [0; Log::EVENT_BYTES_MAX];
        for step in steps {
            match step {
                Step::Append { lengths, commits } => {
                    let all_read = cursors.iter().all(|cursor| *cursor == model.head);
                    model.append(&mut attachment, &memory.bench, &lengths, commits, all_read);
                }
                Step::Skip(reader) => cursors[reader] = model.head,
                Step::Read(reader) => {
                    let cursor = &mut cursors[reader];
                    let read = log.read(*cursor, &mut buffer);
                    match model.read(*cursor) {
                        None => prop_assert_eq!(read, Read::End),
                        Some(_) if *cursor < model.tail => {
                            prop_assert_eq!(read, Read::Lost);
                            *cursor = model.head;
                        }
                        Some(entry) => {
                            let (audience, length, next) = (entry.audience, entry.event.len(), entry.next);
                            prop_assert_eq!(read, Read::Entry { audience, length, next });
                            prop_assert_eq!(&buffer[..length], &entry.event[..]);
                            *cursor = next;
                        }
                    }
                }
            }
            prop_assert!(log.window().0 <= log.window().1 && log.window().1 == model.head);
        }
    }
}

#[test]
fn an_event_that_is_too_long_leaves_no_trace() {
    let (_, memory, mut attachment) = bench();
    let log = &memory.bench.log;
    let mut tx = attachment.begin(&memory.bench);
    let mut appender = log.append(&mut tx, false);
    let refused = appender.push(&mut tx, 1, &[7; Log::EVENT_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(EntryTooLarge { .. })));
    appender
        .push(&mut tx, 2, &[7; Log::EVENT_BYTES_MAX])
        .expect("just short enough");
    appender.finish(&mut tx);
    tx.commit().expect("few cells fit the journal");
    let mut buffer = [0; Log::EVENT_BYTES_MAX];
    assert!(matches!(
        log.read(0, &mut buffer),
        Read::Entry {
            audience: 2,
            length: Log::EVENT_BYTES_MAX,
            ..
        }
    ));
}

#[test]
fn what_was_not_announced_is_known_until_it_is() {
    let (_, memory, mut attachment) = bench();
    let log = &memory.bench.log;
    assert_eq!(log.unannounced_head(), None);
    Model::default().append(&mut attachment, &memory.bench, &[5], true, false);
    let offset = log.unannounced_head().expect("an event was published");
    assert_eq!(log.unread_bytes(0), offset);
    log.set_announced(offset);
    assert_eq!(log.unannounced_head(), None);
    assert!(log.ends_at(offset) && !log.ends_at(0));
}

#[test]
fn a_reader_beside_the_writer_never_sees_half_an_event() {
    let (_, memory, mut attachment) = bench();
    let (log, done) = (&memory.bench.log, AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read_what_is_about_to_be_written_over(log, &done));
        }
        for number in 1..=300_000 {
            let mut tx = attachment.begin(&memory.bench);
            let mut appender = log.append(&mut tx, false);
            appender
                .push(&mut tx, number, &event_of(number))
                .expect("short enough");
            appender.finish(&mut tx);
            tx.commit().expect("few cells fit the journal");
        }
        done.store(true, Ordering::Release);
    });
}

/// Tells by its bytes whose it is.
fn event_of(number: u32) -> Vec<u8> {
    u64::from(number).to_le_bytes().repeat(1 + (number % 7) as usize)
}

fn read_what_is_about_to_be_written_over(log: &Log, done: &AtomicBool) {
    let mut buffer = [0; Log::EVENT_BYTES_MAX];
    while !done.load(Ordering::Acquire) {
        let (oldest, _) = log.window();
        if let Read::Entry { audience, length, .. } = log.read(oldest, &mut buffer) {
            assert_eq!(&buffer[..length], event_of(audience), "a torn event");
        }
    }
}
