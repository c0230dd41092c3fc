//! Follows the subscribers file: read anew when it changes and on SIGHUP; refused as a whole when it
//! has a fault, and then the old one stays in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, process_environment};
use crate::metrics::Metrics;
use crate::setup;
use crate::subscribers::Subscribers;

/// Editors write in several steps: wait this long for the last one.
const SETTLE: Duration = Duration::from_millis(200);

/// Keeps `current` up to date until `shutdown`.
pub async fn follow(
    config: Arc<Config>,
    current: watch::Sender<Arc<Subscribers>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let (changed, mut changes) = mpsc::channel(1);
    // Kept alive for as long as we follow: dropping it ends the watching.
    let _watcher = watch_folder(&config.subscribers, changed);
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = hangups.recv() => {}
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
            }
        }
        let read = Arc::clone(&config);
        let loaded =
            tokio::task::spawn_blocking(move || setup::subscribers(&read, &process_environment)).await;
        match loaded {
            Ok(Ok(subscribers)) => {
                tracing::info!(subscribers = subscribers.len(), "the subscribers file was read anew");
                current.send_replace(Arc::new(subscribers));
                metrics.config_reloaded(true, clock.now());
            }
            Ok(Err(faults)) => {
                for fault in &faults {
                    tracing::error!(%fault, "the new subscribers file is refused; the old one stays in force");
                }
                metrics.config_reloaded(false, clock.now());
            }
            Err(_) => metrics.config_reloaded(false, clock.now()),
        }
    }
}

/// Watches the folder, not the file: a file that is replaced by another is another file.
fn watch_folder(file: &Path, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let name = file.file_name().map(ToOwned::to_owned);
    // A mounted Kubernetes volume changes by turning a link named `..data`, never the file itself. Of
    // everything else in the folder (an embedded queue, say) nothing concerns us.
    let concerns = move |event: &notify::Event| {
        let of = |path: &PathBuf| {
            path.file_name().is_some_and(|have| Some(have) == name.as_deref() || have == "..data")
        };
        !event.kind.is_access() && event.paths.iter().any(of)
    };
    let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| concerns(&event)) {
            // A full channel means a reading is due anyway.
            let _ = changed.try_send(());
        }
    })
    .and_then(|mut watcher| watcher.watch(&folder, RecursiveMode::NonRecursive).map(|()| watcher));
    watching
        .inspect_err(|_| tracing::warn!("the subscribers file cannot be watched; send SIGHUP after a change"))
        .ok()
}
