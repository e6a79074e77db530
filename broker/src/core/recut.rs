//! A batch whose numbers are all written, but in batches that were cut otherwise.
//!
//! A process that is started again may gather its records into other batches than the one before it. Its numbers are
//! known, and each lies somewhere in the log; but the digests that the table remembers are those of the old batches, so
//! they cannot tell whether the content is the same. The records themselves can: they are compared, one by one, with
//! those of the log. Nothing is written either way.
//!
//! The answer waits until everything that was proposed before is applied here: what is compared is committed.

use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Appended, Offset, Refusal, Response, Span};
use sequor_wal::Index;

use super::effect::EntryError;
use super::producers::AppendVerdict;
use super::{Core, Halt};

impl Core {
    /// Answers the append of a batch that was found to be cut otherwise than what is written.
    pub(super) fn answer_recut(&mut self, batch: &Batch) -> Result<Response, Refusal> {
        let places = match self.applied.judge_append(batch)? {
            AppendVerdict::Recut { places } => places,
            // What it rested on was never committed after all.
            AppendVerdict::Next | AppendVerdict::Known { .. } => return Err(Refusal::Unavailable),
        };
        match self.first_difference(&batch.unpacked()?, &places) {
            Ok(None) => Ok(Response::Appended(self.recognised(batch, &places))),
            Ok(Some((at, offset))) => {
                Err(Refusal::SequenceReused { first: batch.first_sequence().plus(at), offset })
            }
            Err(halt) => {
                self.halt(halt);
                Err(Refusal::LogUnreadable { at: places[0].offset })
            }
        }
    }

    fn recognised(&self, batch: &Batch, places: &[Span]) -> Appended {
        let rest = places[1..].to_vec();
        Appended { rest, ..self.applied.appended(places[0].offset, batch.count(), true) }
    }

    /// The first record of `batch` that is not what the log holds in its place: which, and where.
    fn first_difference(&self, batch: &Batch, places: &[Span]) -> Result<Option<(u64, Offset)>, Halt> {
        let mut sent = (0..).zip(batch.contents());
        let mut index = 0;
        for place in places {
            let (mut next, end) = (place.offset, place.offset.plus(place.count.into()));
            index = self.positions.at_or_before(next).max(index);
            while next < end {
                assert!(index <= self.applied_index, "what the applied state knows is applied");
                for written in self.written_at(index)? {
                    let written = written?;
                    let skipped = next.0.saturating_sub(written.base.0);
                    if skipped >= written.batch.count().into() || written.base >= end {
                        continue;
                    }
                    let batch = written.batch.unpacked().map_err(unreadable(index))?;
                    let contents = (written.base.0..end.0).zip(batch.contents());
                    for (offset, content) in contents.skip(skipped as usize) {
                        let content = content.map_err(unreadable(index))?;
                        let Some((at, again)) = sent.next() else { return Ok(None) };
                        if again != Ok(content) {
                            return Ok(Some((at, Offset(offset))));
                        }
                        next = Offset(offset + 1);
                    }
                }
                // The next place may begin in the same entry.
                index += u64::from(next < end);
            }
        }
        Ok(None)
    }
}

fn unreadable(index: Index) -> impl FnOnce(Refusal) -> Halt {
    move |refusal| Halt::Entry { index, cause: EntryError::Batch(refusal) }
}
