//! The survey: all segments of a directory, looked at once, in the order of their ids. Nothing is changed.
//!
//! Recovery stops at the first file that cannot be part of the log; who inspects a directory goes on to the next.
//! So it is their loop, and each file is one step of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::block::Unlike;
use crate::fold::Fold;
use crate::recovery::{OpenError, io_error};
use crate::segment::{self, Found, Header};
use crate::{Damage, Disk, Index, Position, Region, Settings, Spare};

/// Whose segments they must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: [u8; 16],
}

/// What the segments hold, as far as they were looked at.
#[derive(Debug)]
pub(crate) struct Survey {
    owner: Owner,
    pub(crate) fold: Fold,
    /// Segments with a header and nothing else.
    pub(crate) blank: Vec<Spare>,
    /// A segment that does not even have a header: a crash came while it was made.
    unfinished: Option<u64>,
    /// One above the highest id.
    pub(crate) next_segment: u64,
    /// The segment that was looked at last, whole.
    bytes: Vec<u8>,
}

/// A segment in which something was written.
#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) region: Arc<dyn Region>,
    pub(crate) header: Header,
    /// The highest index in it, hidden or not. None if it has no good block.
    pub(crate) last: Option<Index>,
}

/// The segments among the names of a directory, in ascending order, with their ids.
pub(crate) fn segments_of(names: &[String]) -> impl Iterator<Item = (&str, u64)> {
    // The names have fixed digits: ascending names are ascending ids.
    names.iter().filter_map(|name| Some((name.as_str(), segment::file_segment(name)?)))
}

impl Survey {
    pub(crate) fn new(owner: Owner) -> Self {
        let fold = Fold::new(Position::start(&owner.cluster));
        Self { owner, fold, blank: Vec::new(), unfinished: None, next_segment: 1, bytes: Vec::new() }
    }

    /// The next segment that is there is the one with this id.
    ///
    /// # Errors
    /// If one must be there before it.
    pub(crate) fn expect_no_gap(&mut self, id: u64) -> Result<(), Damage> {
        let due = std::mem::replace(&mut self.next_segment, id.saturating_add(1));
        if id == due {
            return Ok(());
        }
        let (expected, found) = ("a segment: their ids have no gap".into(), "no file".into());
        Err(Damage { file: segment::file_name(due), offset: 0, expected, found })
    }

    /// There is a later segment than those that were looked at.
    ///
    /// # Errors
    /// If the last of them has no header: segments are made one after the other.
    pub(crate) fn expect_finished(&mut self) -> Result<(), Damage> {
        let Some(unfinished) = self.unfinished.take() else { return Ok(()) };
        let (expected, found) = ("a header: there is a later segment".into(), "zeros".into());
        Err(Damage { file: segment::file_name(unfinished), offset: 0, expected, found })
    }

    /// Looks at a segment; what is used of it.
    ///
    /// # Errors
    /// If it is not ours, or could not be read. Its blocks are then not part of the log.
    pub(crate) fn add(&mut self, disk: &dyn Disk, name: &str, id: u64) -> Result<Option<Used>, OpenError> {
        let failed = |operation| move |source| io_error(operation, name, source);
        let region = disk.open(name).map_err(failed("open"))?;
        segment::read_whole(&*region, &mut self.bytes).map_err(failed("read"))?;
        let header = match Header::read(&self.bytes, id, region.bytes()) {
            Found::Format(found) => {
                return Err(OpenError::WrongFormat { file: name.into(), found, supported: segment::FORMAT });
            }
            Found::Header(header) if header.cluster != self.owner.cluster => {
                return Err(OpenError::WrongCluster { file: name.into() });
            }
            Found::Header(header) if header.incarnation != self.owner.incarnation => {
                return Err(OpenError::WrongIncarnation { file: name.into() });
            }
            Found::Header(header) => header,
            Found::Nothing(_)
                if segment::is_zero(&self.bytes[self.bytes.len().min(segment::HEADER_BYTES)..]) =>
            {
                self.unfinished = Some(id);
                return Ok(None);
            }
            Found::Nothing(Unlike { expected, found }) => {
                self.fold.add_unreadable(Damage { file: name.into(), offset: 0, expected, found });
                return Ok(None);
            }
        };
        let scan = segment::scan(&header, &self.bytes);
        if scan.is_blank() {
            self.blank.push(Spare { region, header });
            return Ok(None);
        }
        let last = scan.last_index();
        self.fold.add(&region, &header, scan)?;
        Ok(Some(Used { region, header, last }))
    }

    /// Whether the last segment does not even have a header.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// The lowest segment above the one in use that is of no use: torn, unfinished, or of other sizes than are
    /// wanted now.
    pub(crate) fn first_leftover(&self, torn: &[u64], settings: &Settings) -> Option<u64> {
        let in_use = self.fold.active.as_ref().map_or(0, |active| active.header.segment);
        let other = |header: &Header| {
            header.bytes != settings.segment_bytes || header.alignment != settings.alignment
        };
        let misfits = self.blank.iter().map(|spare| &spare.header).filter(|header| other(header));
        let leftovers =
            misfits.map(|header| header.segment).chain(torn.iter().copied()).chain(self.unfinished);
        leftovers.filter(|segment| *segment > in_use).min()
    }

    /// The blank segments between the one in use and `end`: they can be used.
    pub(crate) fn spares(&self, end: u64) -> VecDeque<Spare> {
        let in_use = self.fold.active.as_ref().map_or(0, |active| active.header.segment);
        let usable = self.blank.iter().filter(|spare| (in_use + 1..end).contains(&spare.header.segment));
        usable.map(|spare| Spare { region: Arc::clone(&spare.region), header: spare.header }).collect()
    }
}
