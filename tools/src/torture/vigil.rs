//! Waiting for those who end by themselves, when nothing is wrong any more: as long as something is heard of them, and
//! nothing is heard of a broker that dies.
//!
//! How long they have to do is not known, so what has a limit is their silence. Without it a log that nobody can deliver
//! would be waited for until somebody looks.

use std::time::Duration;

use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};

use super::arena::ArenaError;
use crate::{
    cluster::{ClusterError, LOOK},
    exit::{Failure, Verdict},
};

/// Who is waited for.
#[derive(Debug)]
pub(super) struct Vigil {
    /// What they do, in words.
    pub(super) what: &'static str,
    /// The longest silence.
    pub(super) patience: Duration,
}

impl Vigil {
    /// Waits until all have ended; `heard` counts what they have done so far, and `check` is asked whether all brokers live.
    ///
    /// # Errors
    /// What the first of them says that fails; [`ArenaError::Silent`]; what `check` says.
    pub(super) async fn keep<E: Verdict>(
        &self,
        tasks: &mut JoinSet<Result<(), E>>,
        heard: impl Fn() -> u64,
        mut check: impl FnMut() -> Result<(), ClusterError>,
    ) -> Result<(), Failure> {
        let (mut last, mut since) = (heard(), Instant::now());
        while !tasks.is_empty() {
            if let Ok(Some(ended)) = timeout(LOOK, tasks.join_next()).await {
                joined(ended)?;
                since = Instant::now();
            }
            check()?;
            let now = heard();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > self.patience {
                let (what, seconds) = (self.what, self.patience.as_secs());
                return Err(ArenaError::Silent { what, seconds }.into());
            }
        }
        Ok(())
    }
}

/// What those that have ended have come to. The others go on.
pub(super) fn found<E: Verdict>(tasks: &mut JoinSet<Result<(), E>>) -> Result<(), Failure> {
    std::iter::from_fn(|| tasks.try_join_next()).try_for_each(joined)
}

/// What came of one that has ended. A panic goes on in whoever asks.
fn joined<E: Verdict>(ended: Result<Result<(), E>, JoinError>) -> Result<(), Failure> {
    Ok(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use tokio::time::sleep;

    use super::*;
    use crate::torture::writer::WriterError;

    const MINUTE: Vigil = Vigil { what: "nothing", patience: Duration::from_secs(60) };

    fn said(kept: Result<(), Failure>) -> String {
        match kept {
            Err(Failure::Told { error, .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let mut tasks = JoinSet::<Result<(), WriterError>>::new();
        tasks.spawn(pending());
        let said = said(MINUTE.keep(&mut tasks, || 7, || Ok(())).await);
        assert!(said.contains("nothing"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_something_is_waited_for() {
        let (heard, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::<Result<(), WriterError>>::new());
        let worker = Arc::clone(&heard);
        tasks.spawn(async move {
            for _ in 0..20 {
                sleep(MINUTE.patience / 10).await;
                worker.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let kept = MINUTE.keep(&mut tasks, || heard.load(Ordering::Relaxed), || Ok(())).await;
        kept.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(heard.load(Ordering::Relaxed), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_dies_ends_the_wait() {
        let mut tasks = JoinSet::<Result<(), WriterError>>::new();
        tasks.spawn(pending());
        let dead =
            || Err(ClusterError::Lives { id: sequor_client::protocol::BrokerId(2), waited: Duration::ZERO });
        let said = said(Vigil { patience: Duration::MAX, ..MINUTE }.keep(&mut tasks, || 7, dead).await);
        assert!(said.contains("broker 2"), "{said}");
    }
}
