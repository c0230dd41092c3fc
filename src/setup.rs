//! What the files of an installation say together, read once, and the operator's way into its store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Config, QueueChoice};
use crate::document::{self, Environment, Fault};
use crate::queue::contract::{Queue, QueueAdmin, QueueError};
use crate::queue::embedded::EmbeddedQueue;
use crate::queue::redis::RedisQueue;
use crate::queue::sealed::Sealed;
use crate::seal::Keyring;
use crate::subscribers::Subscribers;
use crate::template::Templates;

/// Every file that was read, and nothing wrong in any.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Who gets what.
    pub subscribers: Subscribers,
    /// How it reads.
    pub templates: Templates,
}

impl Setup {
    /// Reads the configuration at `path` and the subscribers file it names, or tells every fault in both:
    /// one that the configuration has does not hide those of the subscribers.
    pub fn load(path: &Path, env: &Environment<'_>) -> Result<Self, Vec<Fault>> {
        let config = match Config::load(path, env) {
            Ok(config) => config,
            Err(mut faults) => {
                let file = named_subscribers(path, env);
                let more = file.and_then(|file| Subscribers::load(&file, env).err());
                faults.extend(more.into_iter().flatten());
                return Err(faults);
            }
        };
        let subscribers = subscribers(&config, env)?;
        let templates = templates(&config);
        Ok(Self { config, subscribers, templates })
    }
}

/// The subscribers file that a faulty configuration names, as far as that can be told.
fn named_subscribers(path: &Path, env: &Environment<'_>) -> Option<PathBuf> {
    let mut named = None;
    // Its faults are known already; this only listens to one key.
    let _ = document::load(path, env, |root| {
        named = if root.has("subscribers") {
            root.text("subscribers").map(|text| text.as_str().to_owned())
        } else {
            Some("subscribers.toml".to_owned())
        };
        Some(())
    });
    let folder = path.parent().unwrap_or(Path::new(""));
    named.filter(|file| !file.is_empty()).map(|file| folder.join(file))
}

/// Reads the subscribers file of `config`, with every check that concerns both files.
pub fn subscribers(config: &Config, env: &Environment<'_>) -> Result<Subscribers, Vec<Fault>> {
    let subscribers = Subscribers::load(&config.subscribers, env)?;
    let faults = config.check(&subscribers);
    if faults.is_empty() { Ok(subscribers) } else { Err(faults) }
}

/// The templates of a configuration.
pub fn templates(config: &Config) -> Templates {
    let mut templates = Templates::default();
    for (channel, text) in &config.templates {
        let template = Templates::parse(channel, text);
        templates.set(channel.clone(), template.expect("a configuration with a faulty template is refused"));
    }
    templates
}

/// The one partition that stores have in the eyes of the seal. Which shard of Redis a message is in
/// follows from its id, which the seal binds.
const SHARD: u16 = 0;

/// Puts the seal before what messages are brought to.
pub fn sealed(queue: Arc<impl Queue + 'static>, keys: Keyring) -> Arc<dyn Queue> {
    Arc::new(Sealed::new(queue, keys, SHARD))
}

/// The operator's handle of a store, beside the services that use it.
#[derive(Clone)]
pub struct Store {
    /// To look, and to change what died.
    pub admin: Arc<dyn QueueAdmin>,
    /// To see whether the services can use it.
    pub queue: Arc<dyn Queue>,
}

impl Store {
    /// Opens the store of `config` beside its services, or while there are none.
    ///
    /// Of an embedded store the file must be there, and the call blocks on the disk; a Redis server is
    /// not asked yet.
    pub fn open(config: &Config, clock: Clock) -> Result<Self, QueueError> {
        let settings = config.queue_settings.clone();
        match &config.queue {
            QueueChoice::Embedded { path } => EmbeddedQueue::open_beside(path, settings, clock)
                .map(|queue| Self::of(Arc::new(queue), config.keys.clone())),
            QueueChoice::Redis(server) => RedisQueue::new(server.clone(), settings, clock)
                .map(|queue| Self::of(Arc::new(queue), config.keys.clone())),
        }
    }

    /// Puts the seal before a back-end.
    pub fn of(queue: Arc<impl Queue + QueueAdmin + 'static>, keys: Keyring) -> Self {
        let sealed = Arc::new(Sealed::new(queue, keys, SHARD));
        Self { admin: sealed.clone(), queue: sealed }
    }
}
