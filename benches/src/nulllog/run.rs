//! All four processes, point by point.

use std::{
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use sequor_benches::{
    busy,
    child::{ChildError, Dependant},
    cpu::{cpu_us, used_us},
    delay::{Carries, Links},
    figure::{Figure, Figures},
    point::Point,
};
use sequor_client::transport::Profile;
use sequor_wal::Settings;
use thiserror::Error;

use crate::{
    load::{Load, LoadError},
    wire::{self, Identity, WireError},
};

/// The leader and two followers.
const NODES: usize = 3;
/// A closed loop is at its usual speed after this, or after four round trips.
const WARM_UP: Duration = Duration::from_secs(1);

/// How figures are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// For people.
    Table,
    /// For programs: what `sequor bench append -o json` prints.
    Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Where to measure: records of a request, `x`, requests in flight. More than one by commas.
    #[arg(long, value_delimiter = ',', default_value = "1x1,1x16,1x256,1x1000,100x16,1000x1,1000x16")]
    point: Vec<Point>,

    /// Bytes of a record.
    #[arg(long, default_value = "128")]
    size: u64,

    /// How long each point is measured. Seconds.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Delay of each link, there and back. Microseconds.
    #[arg(long, default_value = "0")]
    rtt_us: u64,

    /// The program whose `bench relay` delays the links. Only needed with a delay.
    #[arg(long, default_value = "sequor", value_name = "PROGRAM")]
    sequor: PathBuf,

    /// Directory for the logs, on the disk that is to be measured. Its content is removed afterwards.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Size of a segment, as sequor's `segment_bytes`. Bytes.
    #[arg(long, default_value_t = Settings::default().segment_bytes)]
    segment_bytes: u64,

    /// Write one segment over and over: nothing is filled ahead, nothing is rolled.
    #[arg(long)]
    in_place: bool,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// There are no figures.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// The directory cannot be used.
    #[error("cannot make a directory for the logs")]
    Directory(#[source] io::Error),
    /// A process is missing.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// No connection to the leader.
    #[error("cannot reach the leader")]
    Wire(#[from] WireError),
    /// Nor a stream.
    #[error("the leader is gone")]
    Gone(#[from] quinn::ConnectionError),
    /// It does not acknowledge.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Measures, and prints.
///
/// # Errors
/// [`RunError`].
pub(crate) async fn run(args: RunArgs) -> Result<(), RunError> {
    if let Some(doubt) = busy::doubt(busy::load_average()) {
        eprintln!("nulllog: {doubt}");
    }
    let mut figures = Figures::default();
    for point in &args.point {
        let figure = measure(&args, *point).await?;
        if matches!(args.output, Shape::Table) {
            println!("{}", line(&figure));
        }
        figures.results.push(figure);
    }
    if matches!(args.output, Shape::Json) {
        println!("{}", serde_json::to_string(&figures).expect("it has string keys"));
    }
    Ok(())
}

fn line(figure: &Figure) -> String {
    let Figure { records_per_s, p50_us, p99_us, p999_us, .. } = figure;
    let cpu = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    format!(
        "{:>9}  {records_per_s:>10.0} records/s  p50 {p50_us} us  p99 {p99_us} us  p99.9 {p999_us} us  CPU us/record: \
         client {}, nodes {}",
        figure.point.to_string(),
        cpu(figure.client_cpu_us_per_record),
        cpu(figure.broker_cpu_us_per_record)
    )
}

/// One point, on logs of its own: each begins with the same spares.
async fn measure(args: &RunArgs, point: Point) -> Result<Figure, RunError> {
    let place = match &args.data {
        Some(data) => fs::create_dir_all(data).and_then(|()| tempfile::tempdir_in(data)),
        None => tempfile::tempdir(),
    };
    let place = place.map_err(RunError::Directory)?;
    let identity = Identity::create(place.path())?;
    let links = Links::lay(&args.sequor, Carries::Udp, NODES, args.rtt_us)?;
    let nodes = nodes(args, place.path(), &links)?;
    let endpoint = wire::endpoint((Ipv4Addr::LOCALHOST, 0).into(), None)?;
    let leader = wire::connect(&endpoint, loopback(links.known[0]), &identity, Profile::Client).await?;
    let mut load = Load::new(leader.open_bi().await?, point, args.size);
    load.run(WARM_UP.max(Duration::from_micros(4 * args.rtt_us))).await?;
    let processes: Vec<_> = nodes.iter().map(Dependant::id).collect();
    let used = || (cpu_us(&[std::process::id()]), cpu_us(&processes));
    let before = used();
    let (tally, seconds) = load.run(Duration::from_secs(args.seconds)).await?;
    let after = used();
    let (own, theirs) = (used_us(before.0, after.0), used_us(before.1, after.1));
    let figure = tally.figure(point, args.size, args.rtt_us, seconds);
    let each = |us: Option<u64>| share(us?, tally.requests() * point.batch);
    Ok(Figure { client_cpu_us_per_record: each(own), broker_cpu_us_per_record: each(theirs), ..figure })
}

/// Starts the followers, then the leader. The leader comes first in the list.
fn nodes(args: &RunArgs, place: &Path, links: &Links) -> Result<Vec<Dependant>, RunError> {
    let program = std::env::current_exe().map_err(RunError::Directory)?;
    let followers: Vec<_> = links.known[1..].iter().map(|port| loopback(*port).to_string()).collect();
    let mut nodes = Vec::new();
    for at in (0..NODES).rev() {
        let data = place.join(format!("node-{at}"));
        fs::create_dir(&data).map_err(RunError::Directory)?;
        let mut words: Vec<OsString> = vec![if at == 0 { "leader" } else { "follower" }.into()];
        words.extend(["--listen".into(), loopback(links.own[at]).to_string().into()]);
        words.extend(["--data".into(), data.into(), "--certs".into(), place.into()]);
        words.extend(["--segment-bytes".into(), args.segment_bytes.to_string().into()]);
        words.extend(args.in_place.then(|| "--in-place".into()));
        if at == 0 {
            words.extend(["--follower".into(), followers.join(",").into()]);
        }
        let mut node = Dependant::start(&program, words, [])?;
        node.ready()?;
        nodes.insert(0, node);
    }
    Ok(nodes)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn share(us: u64, records: u64) -> Option<f64> {
    (records > 0).then(|| us as f64 / records as f64)
}
