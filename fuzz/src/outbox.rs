//! A small outbox in memory, with the semantics of the real one, that checks each request.

use std::collections::BTreeMap;

use bytes::Bytes;
use cmail_delivery::MemoryOutbox;
use cmail_delivery::address::Mailbox;
use cmail_delivery::bounce::compose_ordered;
use cmail_delivery::failure::TEXT_LIMIT_OCTETS;
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::outbox::{Commit, Committed, MailId, Replacement, StoreError, StoreReply, StoreRequest};

use crate::peer::Taken;
use crate::script::{contains, naive_text, secret_for};

/// The number of messages for rows.
pub(crate) const MESSAGES: u8 = 10;

/// Most octets in one answer, less than the real database's limit, so that it is reached.
const BUDGET_OCTETS: usize = 80 * 1024;

/// The table `outbox`.
pub(crate) struct Outbox {
    mails: MemoryOutbox,
    retries: usize,
    secret: String,
    /// The number of rows of each mail, and how many of them a server has taken responsibility for.
    inserted: BTreeMap<Wire, usize>,
    taken: BTreeMap<Wire, usize>,
}

/// A mail on the wire: reverse-path, forward-path, and its lines with their ends.
type Wire = (String, String, Vec<u8>);

impl Outbox {
    pub(crate) fn new(retries: u32, secret: &str) -> Self {
        let mut mails = MemoryOutbox::new();
        mails.set_budget(BUDGET_OCTETS);
        Self {
            mails,
            retries: usize::try_from(retries).unwrap_or(usize::MAX),
            secret: secret.to_owned(),
            inserted: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// Returns the remaining mail, by ids.
    pub(crate) fn mails(&self) -> &MemoryOutbox {
        &self.mails
    }

    /// Returns the mark of a message. It is in the header, so that a bounce returns it, and cannot be guessed.
    fn token(&self, message: u8) -> String {
        secret_for(&[self.secret.as_bytes(), &[message]].concat())
    }

    /// The message of this number; the last one is longer than what is read at once.
    pub(crate) fn message(&self, number: u8) -> Bytes {
        let body = if number + 1 == MESSAGES { ".long\n".repeat(12_000) } else { ".\r\nshort".to_owned() };
        format!("Message-ID: <{}@example.org>\n\n{body}", self.token(number)).into()
    }

    /// Another process writes a row.
    pub(crate) fn insert(&mut self, mail: Mail) {
        self.count(&mail);
        self.mails.insert(mail).expect("there are ids left");
    }

    fn count(&mut self, mail: &Mail) {
        if let Some(mail) = on_the_wire(mail) {
            *self.inserted.entry(mail).or_default() += 1;
        }
    }

    /// Records that a server has taken responsibility for mail, which must be due, and for each row once.
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
        let number = number.checked_rem(self.mails.len());
        let id = number.and_then(|number| self.mails.mails().nth(number)).map(|(id, _)| id);
        if let Some(id) = id {
            self.mails.remove(id);
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        self.mails.check(&request);
        if let StoreRequest::Commit(commit) = &request {
            self.check(commit);
        }
        let answer = self.mails.answer(request)?;
        if let StoreReply::Committed(Committed { bounces, reported, .. }) = &answer {
            let reports = reported.iter().map(|reported| reported.report);
            for id in bounces.iter().flatten().copied().chain(reports) {
                let mail = self.mails.mail(id).expect("it was inserted").clone();
                assert!(!contains(&mail.data, self.secret.as_bytes()));
                self.count(&mail);
            }
        }
        Ok(answer)
    }

    /// Forgets mail that is given up.
    pub(crate) fn release(&mut self, ids: &[MailId]) {
        self.mails.check_release(ids);
        self.mails.release(ids);
    }

    /// Checks a commit against the mail that still exists.
    fn check(&self, commit: &Commit) {
        assert!(!commit.is_empty());
        for id in commit.delivered.iter().map(|mail| mail.id) {
            if let Some(mail) = self.mails.mail(id) {
                let mail = on_the_wire(mail).expect("it was sent");
                assert!(self.taken.contains_key(&mail), "{id} was taken by no server");
                assert!(!commit.failed.iter().any(|attempt| attempt.id == id), "{id} delivered and failed");
            }
        }
        for attempt in &commit.failed {
            let (id, text) = (attempt.id, attempt.text());
            assert!(text.len() <= TEXT_LIMIT_OCTETS && !text.contains(&*self.secret), "{text}");
            assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
            let Some(mail) = self.mails.mail(id) else { continue };
            assert!(!mail.faillog.iter().any(|attempt| attempt.fatal), "{id} is tried after it failed");
            assert!(mail.faillog.len() < self.retries, "{id} is tried too often");
        }
        commit.replaced.iter().for_each(|replacement| self.check_replacement(replacement, commit));
    }

    fn check_replacement(&self, replacement: &Replacement, commit: &Commit) {
        let found = replacement.originals.iter().map(|id| Some((*id, self.mails.mail(*id)?)));
        // If one is gone, nothing is done.
        let Some(originals) = found.collect::<Option<Vec<(MailId, &Mail)>>>() else { return };
        for (id, mail) in &originals {
            let is_given_up =
                mail.faillog.iter().any(|attempt| attempt.fatal) || mail.faillog.len() >= self.retries;
            assert!(is_given_up, "{id} is given up too early");
            assert!(!commit.failed.iter().any(|attempt| attempt.id == *id), "{id} fails and is replaced");
        }
        let (_, first) = originals.first().expect("nothing is replaced");
        assert!(originals.iter().all(|(_, mail)| mail.data == first.data && mail.sender == first.sender));
        assert!(originals.iter().all(|(_, mail)| mail.wishes.message == first.wishes.message));
        // RFC 3461 section 5.2.6
        let is_wanted = |mail: &Mail| mail.wishes.notify.is_none_or(|notify| notify.failure);
        let wanted = originals.iter().filter(|(_, mail)| is_wanted(mail)).count();
        assert!([0, originals.len()].contains(&wanted), "wanted and unwanted in one");
        let Some(bounce) = &replacement.bounce else {
            let is_address = first.sender.as_deref().is_some_and(|sender| Mailbox::parse(sender).is_ok());
            assert!(!is_address || wanted == 0, "no bounce where there is somebody to tell");
            return;
        };
        assert!(wanted > 0, "a bounce that its sender does not want");
        // An invalid sender gets no bounce; the copies are sent all the same.
        let told = first.sender.as_ref().filter(|sender| Mailbox::parse(sender).is_ok());
        if told.is_some() {
            assert_eq!(bounce.recipients.first(), told, "a bounce for somebody else");
        } else {
            assert!(!bounce.recipients.contains(first.sender.as_ref().expect("the null sender is not told")));
        }
        let data = compose_ordered(&bounce.order).expect("there is somebody to tell");
        for token in (0..MESSAGES).map(|message| self.token(message)) {
            let is_own = contains(&first.data, token.as_bytes());
            assert_eq!(contains(&data, token.as_bytes()), is_own, "{token} in a bounce");
        }
    }
}

/// Returns the form of a row on the wire, if it can be sent.
fn on_the_wire(mail: &Mail) -> Option<Wire> {
    let path = |octets: &[u8]| Mailbox::parse(octets).ok().map(|mailbox| mailbox.as_str().to_owned());
    let reverse_path = mail.sender.as_deref().map_or(Some(String::new()), path)?;
    Some((reverse_path, path(&mail.recipient)?, naive_text(&mail.data)))
}
