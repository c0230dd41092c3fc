//! Assembly: from a configuration to a running service. The only place that knows every concrete type.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::channel::contract::Channel;
use crate::channel::http::HttpClient;
use crate::channel::slack::SlackChannel;
use crate::channel::sms::SmsChannel;
use crate::clock::Clock;
use crate::code::Recogniser;
use crate::config::{Config, LogFormat, LogSettings, QueueChoice};
use crate::delivery::{ChannelId, DestinationKeyer};
use crate::lines::PlainLines;
use crate::metrics::{IngressMetrics, Metrics, QueueMetrics, RedisMetrics, TelemetryMetrics, WorkerMetrics};
use crate::ops::{self, Probe};
use crate::queue::contract::{Owner, Queue, QueueAdmin, QueueError, Stats};
use crate::queue::embedded::EmbeddedQueue;
use crate::queue::measured::MeasuredQueue;
use crate::queue::redis::RedisQueue;
use crate::queue::spool::{Spool, SpoolingQueue};
use crate::source::twilio::SOURCE;
use crate::subscribers::Subscribers;
use crate::worker::settings::ChannelPlan;
use crate::worker::{Worker, WorkerParts};
use crate::{ingress, reload, server, setup, telemetry};

/// What a process does.
pub struct Roles {
    /// Receives webhooks.
    pub ingress: bool,
    /// Routes and delivers, to begin with by these.
    pub worker: Option<Subscribers>,
}

impl Roles {
    /// The process as a maker of spans.
    fn resource(&self) -> telemetry::Resource {
        let service = match (self.ingress, &self.worker) {
            (true, None) => "sms-ingress",
            (false, _) => "sms-worker",
            (true, Some(_)) => "sms-broadcaster",
        };
        telemetry::Resource { service, instance: format!("{:016x}", fastrand::u64(..)) }
    }
}

/// Writes log lines to standard error as `settings` say. Only our own lines: what libraries log may
/// hold addresses.
pub fn start_logging(settings: LogSettings) {
    let ours = Targets::new().with_target("sms_broadcaster", settings.level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(ours);
    // A second call finds the first one's logging in place, which is as good.
    let _ = match settings.format {
        LogFormat::Text if std::io::IsTerminal::is_terminal(&std::io::stderr()) => {
            registry.with(lines.with_ansi(true)).try_init()
        }
        LogFormat::Text => registry.with(lines.event_format(PlainLines).with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}

/// Runs the roles until SIGTERM or SIGINT. 0 after a drain, 1 when it could not run.
pub fn run_service(config: Config, roles: Roles) -> ExitCode {
    start_logging(config.log);
    let runtime = match runtime(&config.queue) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        end_on_signals(shutdown.clone())?;
        let http = HttpClient::new(Clock::system()).context("no root certificates found")?;
        let service = Service::start(config, roles, http, shutdown).await?;
        service.join().await
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime of a service: a thread for each server its store is on, at most one for each processor.
///
/// A store does all its work on one thread, and more of it for a delivery than a worker does: further threads of
/// ours would only hand work to and fro among themselves.
fn runtime(queue: &QueueChoice) -> std::io::Result<tokio::runtime::Runtime> {
    let servers = match queue {
        QueueChoice::Embedded { .. } => 1,
        QueueChoice::Redis(server) => server.shards,
    };
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut builder = match servers.min(processors) {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    builder.enable_all().build()
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT; the second ends the process at once.
pub fn end_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if last {
                std::process::exit(1);
            }
            tracing::info!("draining; once more to stop at once");
            shutdown.cancel();
        }
    });
    Ok(())
}

/// A running service.
pub struct Service {
    tasks: tokio::task::JoinSet<()>,
    /// Sends spans until everything that makes them has ended.
    exporting: Option<AbortOnDropHandle<()>>,
    stop_exporting: CancellationToken,
    /// Answers until everything else has ended: a drain can be watched.
    ops: AbortOnDropHandle<()>,
    stop_ops: CancellationToken,
    fatal: watch::Receiver<Option<Fatal>>,
}

/// Why a service has to end.
#[derive(Clone)]
struct Fatal {
    why: String,
    /// Nothing that it still has in hand can be recorded.
    is_hopeless: bool,
}

/// How long a service whose store is broken goes on: its clients are to hear that it takes nothing.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

impl Service {
    /// Opens the store, binds the listeners and starts the roles. Must be called within a runtime.
    pub async fn start(
        config: Config,
        roles: Roles,
        http: HttpClient,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let clock = Clock::system();
        let store = Store::open(&config, clock.clone()).await?;
        if config.keys.is_empty() {
            tracing::warn!(
                "queue.encryption_keys is not set: whoever can read the store can read texts and recipients \
                 (`smsctl keygen` makes a key)"
            );
        }
        let metrics = Arc::new(Metrics::new(clock.now()));
        let queue_metrics = Arc::new(QueueMetrics::register(&metrics, config.queue_settings.capacity));
        let queue: Arc<dyn Queue> =
            Arc::new(MeasuredQueue::new(Arc::clone(&store.handle.queue), Arc::clone(&queue_metrics)));
        metrics.config_reloaded(true, clock.now());
        let mut tasks = tokio::task::JoinSet::new();
        let drain = config.worker.drain;
        let (tracer, exporter) = telemetry::start(
            config.telemetry.clone(),
            store.kind.system(),
            roles.resource(),
            http.clone(),
            clock.clone(),
            TelemetryMetrics::register(&metrics),
        );
        let stop_exporting = CancellationToken::new();
        let exporting = exporter
            .map(|exporter| AbortOnDropHandle::new(tokio::spawn(exporter.run(stop_exporting.clone()))));

        let mut spool = None;
        if roles.ingress {
            let counted = Arc::new(IngressMetrics::register(&metrics, &[SOURCE]));
            let mut intake = Arc::clone(&queue);
            if let (Some(folder), StoreKind::Redis(redis)) = (&config.spool, &store.kind) {
                let spooling = open_spool(folder, &config, clock.clone(), redis.clone()).await?;
                // The spool is behind the seal, as the store is.
                let sealed = setup::sealed(Arc::clone(&spooling), config.keys.clone());
                intake = Arc::new(MeasuredQueue::new(sealed, Arc::clone(&queue_metrics)));
                let (forwarding, stop) = (Arc::clone(&spooling), shutdown.clone());
                tasks.spawn(async move { forwarding.forward(stop, drain).await });
                spool = Some((spooling, Arc::clone(&counted)));
            }
            let listener = bind(config.ingress.listen, "ingress.listen").await?;
            let (settings, twilio) = (config.ingress.clone(), config.twilio.clone());
            let router = ingress::router(settings, twilio, intake, counted, tracer.clone());
            tracing::info!(listen = %config.ingress.listen, "receiving webhooks");
            tasks.spawn(server::serve(listener, router, shutdown.clone(), drain));
        }
        let mut worker_metrics = None;
        if let Some(subscribers) = roles.worker {
            let channels = channels(&config, http)?;
            let ids: Vec<ChannelId> = channels.iter().map(|(channel, _)| channel.id()).collect();
            let counted = Arc::new(WorkerMetrics::register(&metrics, &ids, config.worker.deadline));
            worker_metrics = Some(Arc::clone(&counted));
            let (current, following) = watch::channel(Arc::new(subscribers));
            let worker = Worker::new(WorkerParts {
                queue: Arc::clone(&queue),
                channels,
                subscribers: following,
                templates: setup::templates(&config),
                recogniser: Arc::new(Recogniser::new()),
                retry: config.retry.clone(),
                keyer: DestinationKeyer::new(config.destination_secret()),
                metrics: counted,
                settings: config.worker.clone(),
                owner: Owner::new(&host_name()),
                tracer,
            });
            tasks.spawn(reload::follow(
                Arc::clone(&config),
                current,
                Arc::clone(&metrics),
                clock,
                shutdown.clone(),
            ));
            tasks.spawn(worker.run(shutdown.clone()));
        }

        let (fatal_sender, fatal) = watch::channel(None);
        let watched = spool.as_ref().map(|(spooling, _)| Arc::clone(spooling));
        tasks.spawn(watch_store(store.kind.clone(), watched, fatal_sender, shutdown.clone()));
        let redis = matches!(store.kind, StoreKind::Redis(_)).then(|| RedisMetrics::register(&metrics));
        let probe = ServiceProbe {
            queue,
            queue_metrics,
            redis,
            admin: Arc::clone(&store.handle.admin),
            spool,
            kind: store.kind,
            metrics,
            worker: worker_metrics,
            draining: shutdown,
        };
        let listener = bind(config.ops_listen, "ops.listen").await?;
        let stop_ops = CancellationToken::new();
        let router = ops::router(Arc::new(probe));
        let serving = server::serve(listener, router, stop_ops.clone(), Duration::from_secs(1));
        let ops = AbortOnDropHandle::new(tokio::spawn(serving));
        Ok(Self { tasks, exporting, stop_exporting, ops, stop_ops, fatal })
    }

    /// Waits for its end.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let mut failed = false;
        let mut broken = self.fatal.clone();
        let hopeless = async {
            match broken.wait_for(|fatal| fatal.as_ref().is_some_and(|fatal| fatal.is_hopeless)).await {
                Ok(_) => tokio::time::sleep(LAST_ANSWERS).await,
                Err(_) => std::future::pending().await,
            }
        };
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                failed |= ended.is_err();
            }
        };
        tokio::select! {
            () = ended => {}
            // A drain would wait for records that nobody can write.
            () = hopeless => {}
        }
        self.tasks.shutdown().await;
        self.stop_exporting.cancel();
        if let Some(exporting) = self.exporting.take() {
            // Whatever becomes of the last spans, the service did its work.
            let _ = exporting.await;
        }
        self.stop_ops.cancel();
        failed |= self.ops.await.is_err();
        let fatal = self.fatal.borrow().clone();
        match fatal {
            Some(fatal) => Err(anyhow::anyhow!(fatal.why)),
            None if failed => Err(anyhow::anyhow!("a part of the service failed")),
            None => Ok(()),
        }
    }
}

/// The store of a service, whichever it is.
struct Store {
    handle: setup::Store,
    kind: StoreKind,
}

#[derive(Clone)]
enum StoreKind {
    Embedded(Arc<EmbeddedQueue>),
    Redis(Arc<RedisQueue>),
}

impl StoreKind {
    /// What it is, in a word for traces.
    fn system(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "sqlite",
            Self::Redis(_) => "redis",
        }
    }

    /// Parts of it that are known to be away.
    fn parts_away(&self) -> usize {
        match self {
            Self::Embedded(_) => 0,
            Self::Redis(queue) => queue.shards_away(),
        }
    }
}

impl Store {
    /// Opens the store. A file must be usable at once; a server may be away for now.
    async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let (settings, keys) = (config.queue_settings.clone(), config.keys.clone());
        match &config.queue {
            QueueChoice::Embedded { path } => {
                let path = path.clone();
                let open = move || EmbeddedQueue::open(&path, settings, clock);
                let queue = Arc::new(tokio::task::spawn_blocking(open).await??);
                queue.prepare().await?;
                Ok(Self {
                    handle: setup::Store::of(Arc::clone(&queue), keys),
                    kind: StoreKind::Embedded(queue),
                })
            }
            QueueChoice::Redis(server) => {
                let queue = Arc::new(RedisQueue::new(server.clone(), settings, clock)?);
                if let Err(error @ QueueError::Unusable(_)) = queue.prepare().await {
                    return Err(error.into());
                }
                let handle = setup::Store::of(Arc::clone(&queue), keys);
                Ok(Self { handle, kind: StoreKind::Redis(queue) })
            }
        }
    }
}

/// Opens the spool in `folder` beside `queue`.
async fn open_spool(
    folder: &Path,
    config: &Config,
    clock: Clock,
    queue: Arc<dyn Queue>,
) -> anyhow::Result<Arc<SpoolingQueue>> {
    let (folder, settings) = (folder.to_owned(), config.queue_settings.clone());
    let open = move || Spool::open(&folder, &settings, clock);
    let spool = tokio::task::spawn_blocking(open).await??;
    Ok(Arc::new(SpoolingQueue::new(queue, spool)))
}

/// Looks once a second whether the store, and the spool beside it, may still be used; a reason why not
/// ends the service.
async fn watch_store(
    kind: StoreKind,
    spooling: Option<Arc<SpoolingQueue>>,
    fatal: watch::Sender<Option<Fatal>>,
    stop: CancellationToken,
) {
    let mut prepared = false;
    let mut every = tokio::time::interval(Duration::from_secs(1));
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let failure = match &kind {
            // A file that can no longer be written must not be written on.
            StoreKind::Embedded(queue) => queue.failure(),
            StoreKind::Redis(_) if prepared => None,
            // A server that was away at the start may turn out to be one that must not be used.
            StoreKind::Redis(queue) => match queue.prepare().await {
                Ok(()) => {
                    prepared = true;
                    None
                }
                Err(error @ QueueError::Unusable(_)) => Some(error),
                Err(_) => None,
            },
        };
        let spool_failure = spooling.as_ref().and_then(|spooling| spooling.spool().failure());
        let is_hopeless = failure.is_some();
        if let Some(error) = failure.or(spool_failure) {
            fatal.send_replace(Some(Fatal { why: error.to_string(), is_hopeless }));
            stop.cancel();
        }
    }
}

async fn bind(address: std::net::SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {key} = \"{address}\""))
}

fn channels(config: &Config, http: HttpClient) -> anyhow::Result<Vec<(Arc<dyn Channel>, ChannelPlan)>> {
    let sms: Arc<dyn Channel> = Arc::new(SmsChannel::new(config.sms.clone(), http.clone())?);
    let slack: Arc<dyn Channel> = Arc::new(SlackChannel::new(config.slack.clone(), http));
    let planned = [sms, slack].into_iter().map(|channel| {
        let plan = config.channels.get(&channel.id()).cloned();
        plan.map(|plan| (channel, plan)).context("every channel has a plan in the configuration")
    });
    planned.collect()
}

fn host_name() -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or("host".to_owned())
}

/// A store that does not answer a scrape in this time leaves the last values.
const SCRAPE: Duration = Duration::from_secs(1);

struct ServiceProbe {
    queue: Arc<dyn Queue>,
    queue_metrics: Arc<QueueMetrics>,
    redis: Option<RedisMetrics>,
    spool: Option<(Arc<SpoolingQueue>, Arc<IngressMetrics>)>,
    admin: Arc<dyn QueueAdmin>,
    kind: StoreKind,
    metrics: Arc<Metrics>,
    worker: Option<Arc<WorkerMetrics>>,
    draining: CancellationToken,
}

#[async_trait]
impl Probe for ServiceProbe {
    async fn ready(&self) -> Result<&'static str, &'static str> {
        if self.draining.is_cancelled() {
            return Err("draining");
        }
        let taking = match &self.spool {
            Some((spooling, _)) => spooling.can_take().await,
            None => self.queue.ping().await.map(|()| false),
        };
        let word = taking.map(|is_spooled| match is_spooled {
            true => "spooling",
            // The others work: whoever sends nobody here any more stops them too.
            false if self.kind.parts_away() > 0 => "partly",
            false => "ok",
        });
        word.map_err(|error| match error {
            QueueError::Unavailable(_) => "unavailable",
            QueueError::Exhausted(_) => "full",
            QueueError::Unusable(_) => "unusable",
        })
    }

    async fn metrics(&self) -> String {
        let (is_up, (), ()) = tokio::join!(self.read_store(), self.read_server(), self.read_spool());
        self.queue_metrics.up.set(is_up.into());
        self.queue_metrics.parts_away.set(i64::try_from(self.kind.parts_away()).unwrap_or(i64::MAX));
        self.metrics.draining(self.draining.is_cancelled());
        self.metrics.render()
    }
}

impl ServiceProbe {
    /// Reads what the store counts, if that is this process's business; whether the store answered.
    async fn read_store(&self) -> bool {
        let Some(worker) = &self.worker else {
            return matches!(tokio::time::timeout(SCRAPE, self.queue.ping()).await, Ok(Ok(())));
        };
        match tokio::time::timeout(SCRAPE, self.admin.stats()).await {
            Ok(Ok(stats)) => {
                show(worker, &stats);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn read_spool(&self) {
        let Some((spooling, metrics)) = &self.spool else { return };
        if let Ok(Ok(messages)) = tokio::time::timeout(SCRAPE, spooling.spool().messages()).await {
            metrics.spool_messages.set(messages.cast_signed());
        }
    }

    /// Reads how the Redis server is, if there is one.
    async fn read_server(&self) {
        let (StoreKind::Redis(queue), Some(metrics)) = (&self.kind, &self.redis) else { return };
        self.metrics.queue_reconnects(queue.reconnects());
        if let Ok(Ok(condition)) = tokio::time::timeout(SCRAPE, queue.condition()).await {
            metrics.show(&condition);
        }
    }
}

fn show(worker: &WorkerMetrics, stats: &Stats) {
    for lane in &stats.lanes {
        let name = lane.lane.as_str();
        for (state, count) in [("ready", lane.ready), ("leased", lane.leased), ("delayed", lane.delayed)] {
            worker.queue_depth.with_label_values(&[name, state]).set(count.cast_signed());
        }
        worker.oldest_ready_age.with_label_values(&[name]).set(lane.oldest_ready_age_s);
        if name != "in" {
            worker.channel_paused.with_label_values(&[name]).set(lane.paused.cast_signed());
        }
    }
    for (cause, count) in &stats.dead_letters {
        worker.dead_letters.with_label_values(&[cause.as_str()]).set(count.cast_signed());
    }
    worker.conservation_error.set(stats.conservation_error);
}
