//! `cargo xtask bench`: figures beside other programs' in the same run, with what is needed to repeat them.
//!
//! Reading order: this file (what a bench is given), [`samples`] (figures, medians, ratios), [`load`] (wrk and h2load),
//! [`usage`] (CPU and memory of a process tree), [`results`] (the table and the file), then one file per bench.

mod batcher;
mod density;
mod embed;
mod faults;
mod gateway;
mod grpc;
mod load;
mod results;
mod routing;
mod samples;
mod scheduler;
mod serve;
mod startup;
mod swap;
mod usage;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::fetch::Store;
use crate::process::{self, cargo, run};
use crate::workspace::{cache_dir, target};
use results::{Outcome, Surroundings};

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask bench startup                        ready time, idle memory, binary size
  cargo xtask bench gateway --rounds 9             CPU per relayed chat request, beside nginx, Envoy, LiteLLM …
  cargo xtask bench all --seconds 1 --rounds 1 --profile dev --no-save      does every bench still run?";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    what: What,
    /// Of each target in each round; the order is reversed every round
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Of models, in `bench swap`
    #[arg(long, default_value_t = 10_000)]
    swaps: u32,
    /// Of `bench soak`
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// How kapok is built; published figures are those of dist
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Print the table and write no file
    #[arg(long)]
    no_save: bool,
    /// Instead of KAPOK_CACHE or the user's cache folder
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Each of the below in turn
    All,
    /// Ready time and idle memory with no models, size of the binary
    Startup,
    /// Relayed chat requests, whole and streamed: latency, and CPU of the gateway, beside nine others
    Gateway,
    /// The same for minutes: does memory grow?
    Soak,
    /// Ten thousand streams that say nothing: what does each keep?
    Idle,
    /// Seventeen faults of a provider before kapok, vllm-router, smg and LiteLLM: a score-card
    Faults,
    /// The batcher's latency target beside fixed delays, on a virtual clock
    Batcher,
    /// Ten thousand calls at a time, beside the smallest servers of tonic, Go and Python
    Grpc,
    /// All of `scheduler-…`
    Scheduler,
    /// Placements on the traces of Alibaba's GPU cluster beside FGD's own
    SchedulerAllocation,
    /// Decisions per second on 1,213 nodes and on 100,000
    SchedulerSpeed,
    /// MIG instances accepted beside minimum fragmentation increment (MFI)
    SchedulerMig,
    /// Watts and allocation as the power knob is turned
    SchedulerPower,
    /// Do jobs start when and where their explanations say?
    SchedulerExplain,
    /// Jobs of public traces in line: fairness and waiting on Philly beside Kueue's rules, deadlines on Chronus beside EDF
    SchedulerQueue,
    /// Eight-GPU jobs among pods that come and go at 95 % load: waiting beside FGD's, with and without moving others
    SchedulerChurn,
    /// /v1/embeddings beside Python onnxruntime on the same file
    Embed,
    /// The two below: the model server
    Serve,
    /// The built-in `identity` over REST and gRPC, beside Triton, MLServer and KServe
    ServeIdentity,
    /// Real models over REST and gRPC, beside ONNX Runtime in a loop
    ServeModels,
    /// Models replaced while requests keep coming
    Swap,
    /// 500 models in 50 MB
    Density,
    /// Time of a routing decision at 10 and 10,000 upstreams; prefix routing beside an oracle on recorded prompts
    Routing,
}

const SERVE: [What; 2] = [What::ServeIdentity, What::ServeModels];

const SCHEDULER: [What; 7] = [
    What::SchedulerAllocation,
    What::SchedulerSpeed,
    What::SchedulerMig,
    What::SchedulerPower,
    What::SchedulerExplain,
    What::SchedulerQueue,
    What::SchedulerChurn,
];

/// Every bench, group by group.
const ALL: [&[What]; 5] = [
    &[
        What::Startup,
        What::Gateway,
        What::Soak,
        What::Idle,
        What::Faults,
        What::Grpc,
        What::Embed,
    ],
    &SCHEDULER,
    &[What::Batcher],
    &SERVE,
    &[What::Swap, What::Density, What::Routing],
];

impl What {
    /// The others call our libraries.
    fn needs_kapok(self) -> bool {
        !matches!(
            self,
            Self::Batcher
                | Self::Routing
                | Self::SchedulerMig
                | Self::SchedulerPower
                | Self::SchedulerExplain
                | Self::SchedulerQueue
                | Self::SchedulerChurn
        )
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    #[default]
    Dist,
    Release,
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dist => "dist",
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Dist | Self::Release => self.name(),
        }
    }
}

/// What every bench works with.
struct Bench<'a> {
    options: &'a Options,
    binary: PathBuf,
    store: Store,
    scratch: PathBuf,
}

impl Bench<'_> {
    fn measure(&self, what: What) -> Result<Outcome> {
        match what {
            What::Startup => startup::run(self),
            What::Gateway => gateway::run(self),
            What::Soak => gateway::soak::run(self),
            What::Idle => gateway::idle::run(self),
            What::Faults => faults::run(self),
            What::Grpc => grpc::run(self),
            What::SchedulerAllocation => scheduler::allocation::run(self),
            What::SchedulerSpeed => scheduler::speed::run(self),
            What::SchedulerMig => scheduler::mig::run(self),
            What::SchedulerPower => scheduler::power::run(self),
            What::SchedulerExplain => scheduler::explain::run(self),
            What::SchedulerQueue => scheduler::queue::run(),
            What::SchedulerChurn => scheduler::churn::run(self),
            What::Embed => embed::run(self),
            What::Batcher => Ok(batcher::run(self)),
            What::ServeIdentity => serve::identity::run(self),
            What::ServeModels => serve::models::run(self),
            What::Swap => swap::run(self),
            What::Density => density::run(self),
            What::Routing => routing::run(self),
            What::All | What::Serve | What::Scheduler => bail!("that is several benches"),
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.options.seconds.into())
    }

    /// Every target once per round, forwards and backwards by turns, so that a drift of the machine meets all alike.
    fn rounds<T: Clone>(&self, targets: &[T]) -> impl Iterator<Item = (u32, T)> + use<'_, T> {
        let targets = targets.to_vec();
        (0..self.options.rounds).flat_map(move |round| {
            let mut order = targets.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            order.into_iter().map(move |target| (round, target))
        })
    }
}

pub(crate) fn run_bench(options: &Options) -> Result<()> {
    process::catch_signals()?;
    let profile = options.profile;
    if options.what.needs_kapok() {
        eprintln!("kapok, {} build", profile.name());
        run(cargo().args(["build", "-p", "kapok", "--profile", profile.name()]))?;
    }
    let scratch = target().join("bench");
    std::fs::create_dir_all(&scratch)?;
    let bench = Bench {
        options,
        binary: target().join(profile.folder()).join("kapok"),
        store: Store::new(cache_dir(options.cache.clone())?),
        scratch,
    };
    let around = Surroundings::now();
    for what in match options.what {
        What::All => ALL.concat(),
        What::Serve => SERVE.to_vec(),
        What::Scheduler => SCHEDULER.to_vec(),
        one => vec![one],
    } {
        let around = around.again();
        let outcome = bench.measure(what)?;
        outcome.print(&around);
        if !options.no_save {
            outcome.save(profile.name(), &around)?;
        }
    }
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A folder of this name in `scratch`, empty.
fn empty_dir(scratch: &Path, name: &str) -> Result<PathBuf> {
    let dir = scratch.join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
