//! What we are compared with: programs on Node.js, and a bare handler.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixtures::{ACCOUNT, PUBLIC_URL, TOKEN};
use crate::process::{Process, free_port};

const FILES: [(&str, &str); 6] = [
    ("package.json", include_str!("peers/package.json")),
    ("package-lock.json", include_str!("peers/package-lock.json")),
    ("twilio.mjs", include_str!("peers/twilio.mjs")),
    ("express.mjs", include_str!("peers/express.mjs")),
    ("ingress.mjs", include_str!("peers/ingress.mjs")),
    ("worker.mjs", include_str!("peers/worker.mjs")),
];

/// The peers on Node.js, installed.
pub(crate) struct Peers {
    folder: PathBuf,
}

/// A running peer.
pub(crate) struct Peer {
    pub(crate) process: Process,
    /// Where it listens, if it does.
    pub(crate) port: u16,
}

impl Peers {
    /// Installs them below the target folder, unless these versions are there already.
    pub(crate) fn install() -> io::Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        fs::create_dir_all(&folder)?;
        let lock = folder.join("package-lock.json");
        let mut is_installed = folder.join("node_modules/.package-lock.json").exists();
        is_installed &= fs::read_to_string(&lock).is_ok_and(|have| have == FILES[1].1);
        for (name, text) in FILES {
            fs::write(folder.join(name), text)?;
        }
        if !is_installed {
            let status = Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"])
                .current_dir(&folder)
                .status()?;
            if !status.success() {
                return Err(io::Error::other("npm ci failed"));
            }
        }
        Ok(Self { folder })
    }

    /// Starts `program` and waits until it is ready.
    pub(crate) fn start(&self, program: &str, redis: u16, provider: &str) -> io::Result<Peer> {
        self.start_with("undici", program, redis, provider)
    }

    /// The same with another HTTP client: `undici` or `fetch`.
    pub(crate) fn start_with(
        &self,
        client: &str,
        program: &str,
        redis: u16,
        provider: &str,
    ) -> io::Result<Peer> {
        let port = free_port()?;
        let mut command = Command::new("node");
        command
            .arg(self.folder.join(program))
            .env("NODE_ENV", "production")
            .env("PORT", port.to_string())
            .env("REDIS_PORT", redis.to_string())
            .env("PROVIDER", provider)
            .env("CLIENT", client)
            .env("ACCOUNT", ACCOUNT)
            .env("AUTH_TOKEN", TOKEN)
            .env("PUBLIC_URL", PUBLIC_URL);
        let process = Process::start_and_hear(command, &self.folder.join("log"))?;
        Ok(Peer { process, port })
    }
}

/// Starts the bare handler.
pub(crate) fn start_ceiling() -> io::Result<Peer> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["ceiling", "--port", &port.to_string()]);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ceiling.log");
    Ok(Peer { process: Process::start_and_hear(command, &log)?, port })
}
