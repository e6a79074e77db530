//! One load on a cluster: rest, warm-up, window, and the wait for what is in flight.

use std::time::{Duration, Instant};

use super::{
    gauges::Costs,
    lists::Point,
    load::{Answered, Load, Window},
    progress::Progress,
    target::Target,
};
use crate::exit::Failure;

/// Time before the window: for connections to find their speed, for files to be written to.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);
/// Round trips that are added to it: a connection begins with a small window and doubles it with each.
pub(super) const WARM_UP_ROUND_TRIPS: u32 = 20;

/// Who is told of each answer.
pub(super) trait Recorder: Send + 'static {
    fn note(&mut self, answered: Answered);
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Trial<R> {
    pub(super) recorder: R,
    /// Requests that an open loop should have sent in the window, and had not when its grace was over.
    pub(super) unsent: u64,
    pub(super) costs: Costs,
    /// Datagrams that the relay had no room for.
    pub(super) overflowed: u64,
}

impl<R: Recorder> Trial<R> {
    /// Puts a load on a cluster; the window is `length` long.
    pub(super) async fn run(
        target: &mut Target,
        point: &Point,
        length: Duration,
        progress: &Progress,
        recorder: impl FnOnce(Window) -> R,
    ) -> Result<Self, Failure> {
        target.rest(progress).await?;
        let load = Load::prepare(&target.client, point).await?;
        let start = Instant::now();
        let from = start + WARM_UP + target.stage.rtt * WARM_UP_ROUND_TRIPS;
        let window = Window { from, to: from + length };
        let overflowed = target.overflowed();
        let mut recorder = recorder(window);
        // On its own, so that it is not asked each time that something else in this thread has news.
        let run = tokio::spawn(async move {
            let unsent = load.run(window, |answered| recorder.note(answered)).await?;
            Ok::<(R, u64), Failure>((recorder, unsent))
        });
        let followed = progress.follow(start, window.to - start);
        let watched = async {
            tokio::select! {
                never = followed => match never {},
                costs = target.watch(window, point.size) => costs,
            }
        };
        let ran = async { run.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) };
        // A load that fails is not waited for.
        let (costs, (recorder, unsent)) = tokio::try_join!(watched, ran)?;
        target.check()?;
        let overflowed = target.overflowed() - overflowed;
        Ok(Self { recorder, unsent, costs, overflowed })
    }
}
