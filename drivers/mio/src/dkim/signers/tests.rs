use std::time::{Duration, Instant};

use cmail_delivery::address::Domain;
use mio::{Poll, Token};

use super::super::PrivateKey;
use super::*;

struct World {
    /// Keeps the waker alive.
    _poll: Poll,
    signers: Signers,
    good: KeyId,
    panicking: KeyId,
}

impl World {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let mut signers = Signers::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        let mut keys = KeyRing::default();
        let domain = |text: &str| Domain::parse(text).unwrap();
        let mut add = |selector: &str, key| keys.add(domain("example.org"), domain(selector), key).id;
        let good = add("good", PrivateKey::from_pem(include_bytes!("../ed25519.pem")).unwrap());
        let panicking = add("panicking", PrivateKey::that_panics());
        signers.turn_to(keys);
        Self { _poll: poll, signers, good, panicking }
    }

    fn sign(&mut self, request: u64, keys: &[KeyId]) {
        self.signers.sign(RequestId(request), keys.iter().map(|key| (*key, [7; 32])).collect());
    }

    /// Returns the next answer.
    fn answer(&mut self) -> (u64, Results) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some((request, results)) = self.signers.poll() {
                return (request.0, results);
            }
            assert!(Instant::now() < limit, "there is no answer");
            thread::yield_now();
        }
    }
}

#[test]
fn a_thread_that_panics_answers_and_goes_on() {
    let mut world = World::new();
    let (good, panicking) = (world.good, world.panicking);
    for request in 0..20 {
        world.sign(2 * request, &[panicking, good]);
        let (answered, results) = world.answer();
        assert_eq!((answered, results.len()), (2 * request, 2));
        assert!(results.iter().all(Result::is_err), "{results:?}");
        world.sign(2 * request + 1, &[good]);
        let (answered, results) = world.answer();
        assert_eq!(answered, 2 * request + 1);
        assert!(results[0].is_ok(), "{results:?}");
    }
}

#[test]
fn threads_that_are_lost_answer_with_an_error_and_others_begin() {
    let mut world = World::new();
    let good = world.good;
    // The threads have gone with a job in hand.
    let (jobs, taken) = channel();
    let (sender, done) = channel();
    world.signers.threads = Some(Threads { jobs, done, count: 2 });
    world.sign(1, &[good; 9]);
    assert!(world.signers.poll().is_none());
    drop((taken, sender));
    let (answered, results) = world.answer();
    assert_eq!((answered, results.len()), (1, 9));
    assert!(results.iter().all(Result::is_err), "{results:?}");
    // They have gone before it.
    let (jobs, _) = channel();
    let (_sender, done) = channel();
    world.signers.threads = Some(Threads { jobs, done, count: 2 });
    world.sign(2, &[good; 9]);
    let (answered, results) = world.answer();
    assert_eq!((answered, results.len()), (2, 9));
    assert!(results.iter().all(Result::is_err), "{results:?}");
    world.sign(3, &[good; 9]);
    let (answered, results) = world.answer();
    assert_eq!((answered, results.len()), (3, 9));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}
