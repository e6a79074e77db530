//! The history file: one JSON object a line, the event and when it was noted, in microseconds since the beginning.
//!
//! ```json
//! {"at_us":15302,"event":"invoked","id":7,"producer":"writer-1","epoch":2,"first":40,"count":10,"digest":"00f1…"}
//! ```
//!
//! What an event is, and what is judged, is `sequor_broker::history`. Whoever records takes the next place in the file:
//! the order of lines is the order in which this process knew of things.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use sequor_broker::history::{Checker, Event, Verdict};

use crate::{
    exit::{Exit, Verdict as HasExit},
    visible::visible_path,
};

/// What is collected before it is written. Bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// A history cannot be written or read.
#[derive(Debug, Error)]
pub(crate) enum HistoryError {
    /// The system does not let us.
    #[error("cannot {what} the history {}", visible_path(.path))]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is none of a history.
    #[error("line {number} of {} is not one of a history", visible_path(.path))]
    Line {
        /// Its number, counted from 1.
        number: u64,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl HasExit for HistoryError {
    fn exit(&self) -> Exit {
        match self {
            Self::File { .. } => Exit::Error,
            Self::Line { .. } => Exit::Usage,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Line<E> {
    at_us: u64,
    #[serde(flatten)]
    event: E,
}

/// Writes a history.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    out: BufWriter<File>,
    ids: u64,
    lines: u64,
    /// Nothing more is written.
    is_closed: bool,
    /// The first thing that went wrong: nothing is written after it.
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins a history in a new file.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, HistoryError> {
        let file = File::create(path).map_err(file_error("create", path))?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let inner = Mutex::new(Inner { out, ids: 0, lines: 0, is_closed: false, failed: None });
        Ok(Self { path: path.to_path_buf(), start: Instant::now(), inner })
    }

    /// A number that was not given before.
    pub(super) fn id(&self) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ids += 1;
        inner.ids
    }

    /// Notes an event. What goes wrong is told by [`Recorder::flush`].
    pub(super) fn record(&self, event: &Event) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_closed {
            return;
        }
        inner.lines += 1;
        if inner.failed.is_some() {
            return;
        }
        let at_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let written = serde_json::to_writer(&mut inner.out, &Line { at_us, event }).map_err(io::Error::from);
        let written = written.and_then(|()| inner.out.write_all(b"\n"));
        inner.failed = written.err();
    }

    /// How many events happened, whether they could be written or not.
    pub(super) fn lines(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    /// Writes what is collected, and takes nothing more: who is not stopped yet has nobody left to tell.
    ///
    /// # Errors
    /// As [`Recorder::flush`].
    pub(super) fn close(&self) -> Result<(), HistoryError> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.flush()
    }

    /// Writes what is collected.
    ///
    /// # Errors
    /// The first thing that went wrong since the beginning.
    pub(super) fn flush(&self) -> Result<(), HistoryError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = match inner.failed.take() {
            Some(failed) => Err(failed),
            None => inner.out.flush(),
        };
        flushed.map_err(file_error("write", &self.path))
    }
}

/// Reads a history and judges it.
///
/// # Errors
/// If the file cannot be read, or is no history.
pub(super) fn check(path: &Path) -> Result<Verdict, HistoryError> {
    Ok(read(path)?.finish())
}

/// Reads the history of a run that was not played to its end, and says what contradicts itself in it already, in words.
/// What is in the logs is not known, so that it must hold as a whole cannot be judged.
///
/// # Errors
/// As [`check`].
pub(super) fn contradiction(path: &Path) -> Result<Option<String>, HistoryError> {
    Ok(read(path)?.violation().map(ToString::to_string))
}

fn read(path: &Path) -> Result<Checker, HistoryError> {
    let file = File::open(path).map_err(file_error("open", path))?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let (mut checker, mut line, mut number) = (Checker::new(), String::new(), 0);
    while reader.read_line(&mut line).map_err(file_error("read", path))? > 0 {
        number += 1;
        let parsed = serde_json::from_str::<Line<Event>>(&line);
        let parsed =
            parsed.map_err(|source| HistoryError::Line { number, path: path.to_path_buf(), source })?;
        checker.push(&parsed.event);
        line.clear();
    }
    Ok(checker)
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HistoryError {
    move |source| HistoryError::File { what, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use sequor_broker::history::{Digest, Place, Run, Violation};

    use super::*;

    fn run() -> Run {
        Run { offset: 0, producer: "p\n\"".into(), epoch: 1, first: 0, count: 2, digest: Digest(u64::MAX) }
    }

    fn events() -> Vec<Event> {
        let Run { producer, epoch, first, count, digest, .. } = run();
        let written =
            |id| Event::Written { id, places: vec![Place { offset: 0, count: 2 }], duplicate: false };
        vec![
            Event::Began { brokers: 1 },
            Event::Fault { what: "none".into() },
            Event::Invoked { id: 1, producer: producer.clone(), epoch, first, count, digest },
            written(1),
            Event::Asked { id: 2 },
            Event::Answered { id: 2, end: 2 },
            Event::Committed { producer: producer.clone(), sequence: 1, offset: Some(1) },
            Event::Sealed { producer: producer.clone(), sequence: 5 },
            Event::Read { reader: 1, run: run() },
            Event::Held { broker: 1, run: run() },
            Event::GaveUp { broker: 1, producer, first: 2, end: 6 },
            Event::Ended { broker: 1, end: 2 },
        ]
    }

    fn checked(events: &[Event]) -> Verdict {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let recorder = Recorder::create(&path).unwrap();
        events.iter().for_each(|event| recorder.record(event));
        recorder.flush().unwrap();
        check(&path).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut direct = Checker::new();
        events().iter().for_each(|event| direct.push(event));
        let verdict = checked(&events());
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!(verdict, direct.finish());
        assert_eq!((verdict.seen.held, verdict.seen.read, verdict.seen.ends), (2, 2, 1));
    }

    #[test]
    fn what_is_spoilt_in_the_file_is_found() {
        let mut events = events();
        events.remove(9);
        events[10] = Event::Ended { broker: 1, end: 0 };
        let verdict = checked(&events);
        assert!(verdict.violations.iter().any(Violation::is_loss), "{verdict:?}");
    }

    #[test]
    fn a_history_without_its_end_is_judged_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let contradiction = |last: Event| {
            let recorder = Recorder::create(&path).unwrap();
            events().iter().take(6).chain([&last]).for_each(|event| recorder.record(event));
            recorder.close().unwrap();
            let lines = recorder.lines();
            recorder.record(&Event::Asked { id: 9 });
            assert_eq!(recorder.lines(), lines, "it is closed");
            contradiction(&path).unwrap()
        };
        assert_eq!(contradiction(Event::Asked { id: 3 }), None);
        let stale = contradiction(Event::Answered { id: 8, end: 2 });
        assert!(stale.is_some_and(|said| said.contains("question 8")));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        std::fs::write(
            &path,
            "{\"at_us\":1,\"event\":\"asked\",\"id\":1}\n{\"at_us\":1,\"event\":\"gone\"}\n",
        )
        .unwrap();
        assert!(matches!(check(&path), Err(HistoryError::Line { number: 2, .. })));
    }
}
