//! Something that speaks as a redis-server does and says what a test wants: for what a real server
//! cannot be brought to say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it was asked: one list of words for each command.
type Asked = Arc<Mutex<Vec<Vec<String>>>>;

/// A server that answers from a script of the test's own.
pub(crate) struct PretendRedis {
    port: u16,
    asked: Asked,
    connections: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl PretendRedis {
    /// Starts one. `answer` gets the words of a command and returns the raw reply; what a client asks
    /// when it connects is answered already.
    pub(crate) async fn start(answer: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Self {
        Self::start_each(move |_, words| answer(words)).await
    }

    /// One that answers each connection in its own way: `answer` also gets its number, the first is 0. An empty
    /// reply is none.
    pub(crate) async fn start_each(
        answer: impl Fn(usize, &[String]) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let asked = Asked::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (answer, noted, counted) = (Arc::new(answer), Arc::clone(&asked), Arc::clone(&connections));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let answer = Arc::clone(&answer);
                tokio::spawn(serve(
                    stream,
                    move |words: &[String]| answer(number, words),
                    Arc::clone(&noted),
                ));
            }
        });
        Self { port, asked, connections, serving }
    }

    /// `redis://127.0.0.1:{port}`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How often a command with this name was asked.
    pub(crate) fn count(&self, name: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panicked");
        asked.iter().filter(|words| words[0].eq_ignore_ascii_case(name)).count()
    }
}

impl Drop for PretendRedis {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A reply that is a text.
pub(crate) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

async fn serve(stream: TcpStream, answer: impl Fn(&[String]) -> String, asked: Asked) {
    let mut stream = BufReader::new(stream);
    while let Some(words) = command(&mut stream).await {
        let reply = match words[0].to_ascii_uppercase().as_str() {
            "CLIENT" | "SELECT" => "+OK\r\n".to_owned(),
            "PING" => "+PONG\r\n".to_owned(),
            _ => answer(&words),
        };
        asked.lock().expect("nobody panicked").push(words);
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next command, `None` when the client is gone.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let number = length(stream, '*').await?;
    let mut words = Vec::with_capacity(number);
    for _ in 0..number {
        let mut word = vec![0; length(stream, '$').await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn length(stream: &mut BufReader<TcpStream>, kind: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(kind)?.parse().ok()
}
