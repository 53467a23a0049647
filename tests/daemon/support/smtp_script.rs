//! What a scripted SMTP server says, and when it misbehaves.

use super::tls::Identity;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

/// A door that a test opens: whatever waits behind it happens only then.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Blocks until the gate is open, or the patience of the bench is over.
    pub(crate) fn pass(&self) {
        let guard = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(guard, super::PATIENCE * 2, |open| !*open).unwrap());
    }
}

/// One thing a server does in answer to one command. Texts get CRLF line ends; several lines become a
/// multi-line reply only if the author wrote the hyphens.
#[derive(Clone)]
pub(crate) enum Action {
    /// Says this.
    Reply(String),
    /// Says exactly these octets.
    Raw(Vec<u8>),
    /// Says this one octet per write.
    Dribble(String),
    /// Says this and closes.
    ReplyThenClose(String),
    /// Closes without a word.
    Close,
    /// Resets the connection without a word.
    Reset,
    /// Says nothing and goes on reading commands.
    Silence,
    /// Says nothing ever again; reads on until the client goes away.
    Stall,
    /// Waits for the gate, then does the other thing.
    After(Gate, Box<Action>),
    /// For DATA: answers 354, reads at least so many octets, then does the other thing.
    TakeData(usize, Box<Action>),
    /// For STARTTLS: says exactly these octets, then starts the handshake.
    RawThenTls(Vec<u8>),
}

impl Action {
    pub(crate) fn reply(text: &str) -> Self {
        Self::Reply(text.to_owned())
    }
}

impl From<&str> for Action {
    fn from(text: &str) -> Self {
        Self::reply(text)
    }
}

/// A command as the script sees it.
pub(crate) struct Command<'a> {
    /// Number of the connection at this server, from 0.
    pub(crate) connection: usize,
    /// `GREETING`, `EHLO`, `MAIL`, …; `.` for the end of the data.
    pub(crate) verb: &'a str,
    /// The whole line, without its end.
    pub(crate) line: &'a str,
    pub(crate) tls: bool,
}

type Handler = Arc<dyn Fn(&Command<'_>) -> Option<Action> + Send + Sync>;

/// Builder of a server's behaviour. What the script does not say, the server does as a correct one would.
#[derive(Clone, Default)]
pub(crate) struct Script {
    pub(super) keywords: Vec<String>,
    pub(super) keywords_in_tls: Option<Vec<String>>,
    pub(super) identity: Option<Identity>,
    pub(super) implicit_tls: bool,
    pub(super) credentials: Option<(String, String)>,
    pub(super) scram_lies: bool,
    pub(super) drops_resumed_sessions: bool,
    pub(super) lenient: bool,
    always: HashMap<String, Action>,
    handlers: Vec<Handler>,
    queues: Arc<Mutex<HashMap<String, VecDeque<Action>>>>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// EHLO keywords, with their parameters.
    pub(crate) fn keywords<const N: usize>(mut self, keywords: [&str; N]) -> Self {
        self.keywords = keywords.map(str::to_owned).to_vec();
        self
    }

    /// EHLO keywords inside TLS, where they differ; STARTTLS is never offered there.
    pub(crate) fn keywords_in_tls<const N: usize>(mut self, keywords: [&str; N]) -> Self {
        self.keywords_in_tls = Some(keywords.map(str::to_owned).to_vec());
        self
    }

    /// Offers STARTTLS with this certificate.
    pub(crate) fn starttls(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self.keywords.push("STARTTLS".to_owned());
        self
    }

    /// Speaks TLS from the first octet.
    pub(crate) fn implicit_tls(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self.implicit_tls = true;
        self
    }

    /// Offers these mechanisms (add them to the keywords in TLS too, if those are set) and verifies what
    /// comes against these credentials.
    pub(crate) fn auth(mut self, mechanisms: &str, user: &str, password: &str) -> Self {
        self.keywords.push(format!("AUTH {mechanisms}"));
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// SCRAM ends with a server signature that does not prove knowledge of the password.
    pub(crate) fn scram_lies(mut self) -> Self {
        self.scram_lies = true;
        self
    }

    /// Closes each connection whose TLS handshake resumes an earlier session.
    pub(crate) fn drops_resumed_sessions(mut self) -> Self {
        self.drops_resumed_sessions = true;
        self
    }

    /// Protocol violations by the client are recorded but do not fail the test by themselves.
    pub(crate) fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Answers every command of this verb so.
    pub(crate) fn always(mut self, verb: &str, action: impl Into<Action>) -> Self {
        self.always.insert(verb.to_owned(), action.into());
        self
    }

    /// Answers the next command of this verb so, over all connections; call again for the one after.
    pub(crate) fn once(self, verb: &str, action: impl Into<Action>) -> Self {
        self.queues.lock().unwrap().entry(verb.to_owned()).or_default().push_back(action.into());
        self
    }

    /// Asks this function first; `None` leaves the answer to the rest of the script.
    pub(crate) fn when(mut self, f: impl Fn(&Command<'_>) -> Option<Action> + Send + Sync + 'static) -> Self {
        self.handlers.push(Arc::new(f));
        self
    }

    pub(super) fn decide(&self, command: &Command<'_>) -> Option<Action> {
        if let Some(action) = self.handlers.iter().find_map(|handler| handler(command)) {
            return Some(action);
        }
        if let Some(action) = self.queues.lock().unwrap().get_mut(command.verb).and_then(VecDeque::pop_front)
        {
            return Some(action);
        }
        self.always.get(command.verb).cloned()
    }
}
