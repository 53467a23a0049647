//! The names of users. They are looked up on a thread of their own, since a directory service may take long to answer, or never do.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

/// How long a message waits for the name of its user. Then the number stands for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often to look whether a name has come that a message waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long a name counts after it was asked for.
const SPAN: Duration = Duration::from_secs(600);

/// With more users than this, all names are forgotten.
const USERS_LIMIT: usize = 1000;

/// The names that are known or asked for.
#[derive(Debug)]
pub(super) struct UserNames {
    questions: Sender<Uid>,
    answers: Receiver<(Uid, String)>,
    users: BTreeMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    asked: Instant,
    name: Option<String>,
}

impl UserNames {
    /// Begins the thread, which ends with this. Names are what `look_up` finds; a user without one goes by the number.
    pub(super) fn new(look_up: fn(Uid) -> Option<String>) -> io::Result<Self> {
        let (questions, asked) = mpsc::channel::<Uid>();
        let (found, answers) = mpsc::channel();
        thread::Builder::new().name("users".to_owned()).spawn(move || {
            for user in asked {
                let name = look_up(user).unwrap_or_else(|| user.to_string());
                if found.send((user, name)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers, users: BTreeMap::new() })
    }

    /// Asks for a name, unless it is known or was asked for.
    pub(super) fn ask(&mut self, user: Uid, now: Instant) {
        let is_old = |known: &Known| now.saturating_duration_since(known.asked) > SPAN;
        if self.users.get(&user.as_raw()).is_some_and(|known| !is_old(known)) {
            return;
        }
        if self.users.len() >= USERS_LIMIT {
            self.users.clear();
        }
        self.users.insert(user.as_raw(), Known { asked: now, name: None });
        // If the thread is gone, numbers stand for all users.
        let _ = self.questions.send(user);
    }

    /// Takes in the names that were found.
    pub(super) fn take_answers(&mut self) {
        for (user, name) in self.answers.try_iter() {
            if let Some(known) = self.users.get_mut(&user.as_raw()) {
                known.name = Some(name);
            }
        }
    }

    /// Returns what stands for a user who has waited for it since then; `None` if it is worth waiting on.
    pub(super) fn name_of(&self, user: Uid, since: Instant, now: Instant) -> Option<String> {
        let name = self.users.get(&user.as_raw()).and_then(|known| known.name.clone());
        name.or_else(|| (now.saturating_duration_since(since) >= PATIENCE).then(|| user.to_string()))
    }

    /// Returns when to look again for a name that is waited for.
    pub(super) fn next_look(now: Instant) -> Instant {
        now + LOOK_INTERVAL
    }
}

/// Asks the system for the name of a user.
pub(super) fn look_up(user: Uid) -> Option<String> {
    User::from_uid(user).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests;
