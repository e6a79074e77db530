//! `sequor wal verify`: is everything in a data directory as it was written, and is the log the same in several?
//!
//! All directories are locked before the first is looked at, so that what is compared belongs together. Their logs are
//! then read side by side, a segment of each at a time. The table and every finding are data and go to stdout; whether
//! all is well is the exit code.

use std::path::PathBuf;

use clap::ValueHint;
use thiserror::Error;

use sequor_wal::{Findings, WalkedEntry};

use super::{
    audit::{Audit, Counts},
    comparison::{Comparing, Comparison, strangers},
    directory::{Directory, Locked},
    report,
};
use crate::{
    cli::Shape,
    exit::{Exit, Failure, Verdict},
    output,
    visible::visible_path,
    words::plain_count,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks every block and every entry of the log (checksums, chain, indexes, terms), that every entry can be read by a \
broker, every batch's checksum and digest, all copies of the vote, and identity, checkpoints and pins. Nothing in a \
directory is changed, made or synced. A broker that runs on one of them has to be stopped first, and none can be \
started meanwhile. Of each directory the first 100 findings are listed, and all are counted.

With several directories it also checks that what was committed is the same in all of them, byte for byte, as far as at \
least two of them know it to be committed. It holds one segment of each directory in memory.

The end of a log that a crash tore is no damage, as it was never confirmed: the column `unproven tail` shows it. It also \
shows the entries of a last block that no later block proves: rot in there could not be told from a torn write.

Exit code 1: something is damaged, or the logs differ. 3: a directory is in use.

Examples:
  sequor wal verify demo/broker-1
  sequor wal verify demo/broker-1 demo/broker-2 demo/broker-3
  sequor wal verify -o json /var/lib/sequor | jq '.directories[].damage'")]
pub(super) struct VerifyArgs {
    /// Data directories of brokers that do not run.
    #[arg(required = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    directories: Vec<PathBuf>,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// Not all is as it was written.
#[derive(Debug, Error)]
pub(super) enum VerifyError {
    /// There are findings.
    #[error(
        "{} in {}: keep the directory as it is, do not run a broker on it, and let the other brokers go on without it",
        plain_count(*.findings, "finding"), visible_path(.path)
    )]
    Damaged {
        /// The first directory with findings.
        path: PathBuf,
        /// How many it has.
        findings: u64,
    },
    /// The logs differ in what is committed.
    #[error(
        "the logs differ at index {index}, which was committed: keep all directories as they are, and run no broker on \
         the one that differs from the others"
    )]
    Differ {
        /// The first index that differs.
        index: u64,
    },
    /// Not of one cluster.
    #[error("{} and {} are of another {what}: their logs cannot be compared", visible_path(.first), visible_path(.other))]
    Strangers {
        /// A directory.
        first: PathBuf,
        /// One that does not belong to it.
        other: PathBuf,
        /// In what they differ.
        what: &'static str,
    },
}

impl Verdict for VerifyError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// A directory, and all that was found out about it.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) directory: Directory,
    pub(super) counts: Counts,
    pub(super) findings: Findings,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let locked: Vec<_> = args.directories.iter().map(|path| Locked::open(path)).collect::<Result<_, _>>()?;
    let directories: Vec<_> = locked.into_iter().map(Locked::inspect).collect::<Result<_, _>>()?;
    let (verified, comparison) = verify(directories);
    output::tell(&match args.output {
        Shape::Table => report::text(&verified, comparison.as_ref()),
        Shape::Json => report::json(&verified, comparison.as_ref()),
    })?;
    verdict(&verified, comparison.as_ref())
}

/// Reads all logs to their ends, side by side.
fn verify(directories: Vec<Directory>) -> (Vec<Verified>, Option<Comparison>) {
    let mut findings: Vec<_> = directories.iter().map(|directory| directory.findings.clone()).collect();
    let inspections: Vec<_> = directories.iter().map(|directory| &directory.inspection).collect();
    let mut audits: Vec<_> = inspections
        .iter()
        .zip(&mut findings)
        .map(|(inspection, findings)| Audit::new(inspection, findings))
        .collect();
    let comparing = (directories.len() > 1).then(|| match strangers(&directories) {
        Some(strangers) => Err(strangers),
        None => Ok(Comparing::new(&inspections)),
    });
    let comparison = match comparing {
        Some(Ok(comparing)) => Some(side_by_side(&mut audits, comparing)),
        other => {
            audits.iter_mut().for_each(|audit| while audit.next_entry().is_some() {});
            other.and_then(Result::err)
        }
    };
    let counts: Vec<_> = audits.into_iter().map(|audit| audit.counts).collect();
    let verified = directories.into_iter().zip(counts).zip(findings);
    let verified = verified.map(|((directory, counts), findings)| Verified { directory, counts, findings });
    (verified.collect(), comparison)
}

/// Takes the entries of all logs in the order of their indexes.
fn side_by_side(audits: &mut [Audit<'_>], mut comparing: Comparing) -> Comparison {
    let mut heads: Vec<Option<WalkedEntry>> = audits.iter_mut().map(Audit::next_entry).collect();
    while let Some(index) = heads.iter().flatten().map(|head| head.entry.index).min() {
        let held: Vec<_> = heads
            .iter()
            .enumerate()
            .filter_map(|(at, head)| Some((at, head.as_ref().filter(|head| head.entry.index == index)?)))
            .collect();
        comparing.take(index, &held);
        for (head, audit) in heads.iter_mut().zip(audits.iter_mut()) {
            if head.as_ref().is_some_and(|head| head.entry.index == index) {
                *head = audit.next_entry();
            }
        }
    }
    comparing.finish()
}

fn verdict(verified: &[Verified], comparison: Option<&Comparison>) -> Result<(), Failure> {
    let path = |at: usize| verified[at].directory.path.clone();
    match comparison {
        Some(Comparison::Strangers { directories: (first, other), what }) => {
            return Err(VerifyError::Strangers { first: path(*first), other: path(*other), what }.into());
        }
        Some(Comparison::Differs { index, .. }) => return Err(VerifyError::Differ { index: *index }.into()),
        Some(Comparison::Same(_)) | None => {}
    }
    match verified.iter().find(|verified| !verified.findings.is_empty()) {
        None => Ok(()),
        Some(Verified { directory, findings, .. }) => {
            let (path, findings) = (directory.path.clone(), findings.count());
            Err(VerifyError::Damaged { path, findings }.into())
        }
    }
}
