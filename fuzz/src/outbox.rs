//! A small outbox in memory, with the semantics of the real one, that checks what is asked of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use cmail_delivery::address::Mailbox;
use cmail_delivery::bounce::{compose_ordered, needed_octets};
use cmail_delivery::failure::TEXT_LIMIT_OCTETS;
use cmail_delivery::outbox::{
    Attempt, ClaimedTransaction, Commit, Cursor, DATA_CHUNK_OCTETS, FailState, FailedMail, FailedMessage,
    MailId, Replacement, Row, StoreReply, StoreRequest, TRANSACTION_RECIPIENT_LIMIT,
};
use cmail_delivery::time::UnixTime;

use crate::peer::Taken;
use crate::script::{contains, naive_text, secret_for};

/// How many messages there are for rows to have.
pub(crate) const MESSAGES: u8 = 10;

/// What one answer brings at most, less than the real database's limit, so that it is met.
const BUDGET_OCTETS: usize = 80 * 1024;

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) remote: Option<Bytes>,
    pub(crate) sender: Option<Bytes>,
    pub(crate) recipient: Bytes,
    pub(crate) data: Bytes,
    pub(crate) attempts: Vec<Attempt>,
}

/// The table `outbox`.
pub(crate) struct Outbox {
    pub(crate) rows: BTreeMap<MailId, Stored>,
    next: i64,
    data_version: i64,
    retries: usize,
    secret: String,
    /// How many rows there were of each mail, and how many of them some server has taken responsibility for.
    inserted: BTreeMap<Mail, usize>,
    taken: BTreeMap<Mail, usize>,
}

/// A mail on the wire: reverse-path, forward-path, and its lines with their ends.
type Mail = (String, String, Vec<u8>);

impl Outbox {
    pub(crate) fn new(retries: u32, secret: &str) -> Self {
        let retries = usize::try_from(retries).unwrap_or(usize::MAX);
        Self {
            rows: BTreeMap::new(),
            next: 1,
            data_version: 1,
            retries,
            secret: secret.to_owned(),
            inserted: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// What marks a message. It stands in its header, so that it comes back in a bounce, and cannot be guessed.
    fn token(&self, message: u8) -> String {
        secret_for(&[self.secret.as_bytes(), &[message]].concat())
    }

    /// The message of this number; the last one is longer than what is read at once.
    pub(crate) fn message(&self, number: u8) -> Bytes {
        let body = if number + 1 == MESSAGES { ".long\n".repeat(12_000) } else { ".\r\nshort".to_owned() };
        format!("Message-ID: <{}@example.org>\n\n{body}", self.token(number)).into()
    }

    /// Another process writes a row.
    pub(crate) fn insert(&mut self, row: Stored) {
        self.data_version += 1;
        self.add(row);
    }

    fn add(&mut self, row: Stored) {
        if let Some(mail) = on_the_wire(&row) {
            *self.inserted.entry(mail).or_default() += 1;
        }
        self.rows.insert(MailId(self.next), row);
        self.next += 1;
    }

    /// A server takes responsibility, and says so: for what is to be sent, and for each row once.
    pub(crate) fn take(&mut self, taken: Taken) {
        let data: Vec<u8> =
            taken.lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect();
        for forward_path in taken.forward_paths {
            let mail = (taken.reverse_path.clone(), forward_path, data.clone());
            let inserted = self.inserted.get(&mail).copied().unwrap_or(0);
            assert!(inserted > 0, "{} gets what is not for them: {}", mail.1, data.escape_ascii());
            let taken = self.taken.entry(mail).or_default();
            *taken += 1;
            assert!(*taken <= inserted, "sent again although it was taken");
        }
    }

    /// Another process deletes one of the rows.
    pub(crate) fn delete(&mut self, number: usize) {
        let id = number.checked_rem(self.rows.len()).and_then(|number| self.rows.keys().nth(number).copied());
        if let Some(id) = id {
            self.data_version += 1;
            self.rows.remove(&id);
        }
    }

    /// Does what is asked.
    pub(crate) fn answer(&mut self, request: StoreRequest) -> StoreReply {
        match request {
            StoreRequest::Scan { after, limit } => {
                let first = after.next_id().into_iter();
                let mut found = first.flat_map(|first| self.rows.range(first..));
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let rows: Vec<Row> =
                    found.by_ref().take(limit).map(|(id, stored)| row(*id, stored)).collect();
                let next = found.next().and(rows.last()).map(|row| Cursor::After(row.id));
                StoreReply::Rows {
                    rows,
                    taken: Vec::new(),
                    unreadable: Vec::new(),
                    next,
                    data_version: self.data_version,
                }
            }
            StoreRequest::Claim { ids, transactions } => self.claim(&ids, transactions),
            StoreRequest::Recall { ids } => {
                let found = |id: MailId| Some(row(id, self.rows.get(&id)?));
                let rows = ids.into_iter().filter_map(found).collect();
                StoreReply::Recalled { rows, unreadable: Vec::new() }
            }
            StoreRequest::ReadData { id, offset, limit } => {
                let data = self.rows.get(&id).map(|stored| stored.data.clone()).unwrap_or_default();
                let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                let end = data.len().min(begin + usize::try_from(limit).unwrap_or(0));
                StoreReply::Data(data.slice(begin..end))
            }
            StoreRequest::Commit(commit) => self.commit(commit),
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                self.failed(&ids, original_limit_octets)
            }
        }
    }

    /// The rows that are there, in groups of equal sender and data.
    fn groups(&self, ids: &[MailId]) -> Vec<Vec<(MailId, &Stored)>> {
        let mut groups: Vec<Vec<(MailId, &Stored)>> = Vec::new();
        for id in ids {
            let Some(stored) = self.rows.get(id) else { continue };
            let fitting = groups.iter_mut().find(|group| {
                group.len() < TRANSACTION_RECIPIENT_LIMIT
                    && group
                        .first()
                        .is_some_and(|(_, first)| first.sender == stored.sender && first.data == stored.data)
            });
            match fitting {
                Some(group) => group.push((*id, stored)),
                None => groups.push(vec![(*id, stored)]),
            }
        }
        groups
    }

    fn claim(&self, ids: &[MailId], limit: usize) -> StoreReply {
        let (mut transactions, mut left_over, mut octets) = (Vec::new(), Vec::new(), 0);
        for group in self.groups(ids) {
            let data = group[0].1.data.clone();
            let head =
                data.slice(..if data.len() > DATA_CHUNK_OCTETS { DATA_CHUNK_OCTETS } else { data.len() });
            octets += head.len();
            if (transactions.len() >= limit || octets > BUDGET_OCTETS) && !transactions.is_empty() {
                left_over.extend(group.iter().map(|(id, _)| *id));
                continue;
            }
            let rows = group.into_iter().map(|(id, stored)| row(id, stored)).collect();
            transactions.push(ClaimedTransaction { rows, data_octets: data.len() as u64, head });
        }
        StoreReply::Claimed { transactions, left_over, unreadable: Vec::new() }
    }

    fn failed(&self, ids: &[MailId], original_limit_octets: u64) -> StoreReply {
        let (mut messages, mut left_over, mut octets) = (Vec::new(), Vec::new(), 0);
        for group in self.groups(ids) {
            let data = &group[0].1.data;
            let needed = needed_octets(data, data.len() as u64, original_limit_octets);
            let original = data.slice(..needed as usize);
            octets += original.len();
            if octets > BUDGET_OCTETS && !messages.is_empty() {
                left_over.extend(group.iter().map(|(id, _)| *id));
                continue;
            }
            let mail = |(id, stored): &(MailId, &Stored)| FailedMail {
                row: row(*id, stored),
                submission: UnixTime(0),
                attempts: stored.attempts.clone(),
            };
            let mails = group.iter().map(mail).collect();
            messages.push(FailedMessage { mails, data_octets: data.len() as u64, original });
        }
        StoreReply::Failed { messages, left_over, unreadable: Vec::new() }
    }

    fn commit(&mut self, commit: Commit) -> StoreReply {
        assert!(!commit.is_empty());
        for id in &commit.delivered {
            if let Some(stored) = self.rows.remove(id) {
                let mail = on_the_wire(&stored).expect("it was sent");
                assert!(self.taken.contains_key(&mail), "{id} was taken by no server");
                assert!(!commit.failed.iter().any(|attempt| attempt.id == *id), "{id} delivered and failed");
            }
        }
        let mut failed = Vec::new();
        for attempt in commit.failed {
            let text = &attempt.text;
            assert!(text.len() <= TEXT_LIMIT_OCTETS && !text.contains(&self.secret), "{text}");
            assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
            let Some(stored) = self.rows.get_mut(&attempt.id) else { continue };
            assert!(
                !stored.attempts.iter().any(|attempt| attempt.fatal),
                "{} is tried after it failed",
                attempt.id
            );
            assert!(stored.attempts.len() < self.retries, "{} is tried too often", attempt.id);
            let text = attempt.text.into_bytes().into();
            stored.attempts.push(Attempt { time: attempt.time, text, fatal: attempt.fatal });
            let Row { id, fail_count, last_try, fatal, .. } = row(attempt.id, stored);
            failed.push(FailState { id, fail_count, last_try, fatal });
        }
        let (mut not_replaced, mut bounces) = (Vec::new(), Vec::new());
        for replacement in commit.replaced {
            let first = self.next;
            if replacement.originals.iter().all(|id| self.rows.contains_key(id)) {
                self.replace(replacement);
            } else {
                let left = replacement.originals.into_iter().filter(|id| self.rows.contains_key(id));
                not_replaced.extend(left);
            }
            bounces.push((first..self.next).map(MailId).collect());
        }
        StoreReply::Committed {
            failed,
            not_replaced,
            changed: Vec::new(),
            bounces,
            refused: Vec::new(),
            not_noted: Vec::new(),
        }
    }

    fn replace(&mut self, replacement: Replacement) {
        let mut originals = Vec::new();
        for id in &replacement.originals {
            let stored = self.rows.remove(id).expect("it was looked for");
            let is_given_up =
                stored.attempts.iter().any(|attempt| attempt.fatal) || stored.attempts.len() >= self.retries;
            assert!(is_given_up, "{id} is given up too early");
            originals.push(stored);
        }
        let first = originals.first().expect("nothing is replaced");
        assert!(originals.iter().all(|stored| stored.data == first.data && stored.sender == first.sender));
        let Some(bounce) = replacement.bounce else {
            let is_address = first.sender.as_deref().is_some_and(|sender| Mailbox::parse(sender).is_ok());
            assert!(!is_address, "no bounce where there is somebody to tell");
            return;
        };
        // A sender that is no address is told nothing; the copies are made all the same.
        let told = first.sender.as_ref().filter(|sender| Mailbox::parse(sender).is_ok());
        if told.is_some() {
            assert_eq!(bounce.recipients.first(), told, "a bounce for somebody else");
        } else {
            assert!(!bounce.recipients.contains(first.sender.as_ref().expect("the null sender is not told")));
        }
        let data = compose_ordered(&bounce.order).expect("there is somebody to tell");
        assert!(!contains(&data, self.secret.as_bytes()));
        for token in (0..MESSAGES).map(|message| self.token(message)) {
            let is_own = contains(&first.data, token.as_bytes());
            assert_eq!(contains(&data, token.as_bytes()), is_own, "{token} in a bounce");
        }
        for recipient in bounce.recipients {
            let data = data.clone();
            let row = Stored { remote: None, sender: None, recipient, data, attempts: Vec::new() };
            self.add(row);
        }
    }
}

/// What of a row goes over the wire, if it can.
fn on_the_wire(stored: &Stored) -> Option<Mail> {
    let path = |octets: &[u8]| Mailbox::parse(octets).ok().map(|mailbox| mailbox.as_str().to_owned());
    let reverse_path = stored.sender.as_deref().map_or(Some(String::new()), path)?;
    Some((reverse_path, path(&stored.recipient)?, naive_text(&stored.data)))
}

fn row(id: MailId, stored: &Stored) -> Row {
    Row {
        id,
        remote: stored.remote.clone(),
        sender: stored.sender.clone(),
        recipient: stored.recipient.clone(),
        data_octets: stored.data.len() as u64,
        fail_count: u32::try_from(stored.attempts.len()).unwrap_or(u32::MAX),
        last_try: stored.attempts.iter().map(|attempt| attempt.time).max().unwrap_or_default(),
        fatal: stored.attempts.iter().any(|attempt| attempt.fatal),
    }
}
