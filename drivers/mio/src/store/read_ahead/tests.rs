use super::*;

const CHUNK: usize = DATA_CHUNK_OCTETS;

fn now() -> Instant {
    Instant::now()
}

/// Reads a message of `total` octets, each of which depends on its position, and answers every job at once.
/// Returns the jobs.
fn read(cache: &mut ReadAhead, id: MailId, total: usize) -> Vec<ReadJob> {
    let (mut jobs, mut offset) = (Vec::new(), 0);
    while offset < total {
        let taken = cache.take(now(), RequestId(7), id, offset as u64, CHUNK);
        let mut arrived = None;
        if let Some(job) = cache.next_job(now(), id) {
            jobs.push(job);
            arrived = cache.arrive(job, Some(piece(job, total)));
        }
        let octets = match taken {
            Availability::Ready(octets) => octets,
            Availability::Pending => arrived.unwrap().1.unwrap(),
            Availability::ReadDirectly => panic!("nobody else reads it"),
        };
        assert!(octets == expected(offset, octets.len()) && !octets.is_empty(), "at {offset}");
        offset += octets.len();
    }
    jobs
}

fn expected(offset: usize, count: usize) -> Vec<u8> {
    (offset..offset + count).map(|position| (position / 7) as u8).collect()
}

fn piece(job: ReadJob, total: usize) -> ReadOutput {
    let begin = usize::try_from(job.offset).unwrap();
    let end = total.min(begin + job.octets);
    let chunks = (begin..end)
        .step_by(CHUNK)
        .map(|offset| Bytes::from(expected(offset, CHUNK.min(end - offset))))
        .collect();
    ReadOutput { chunks, follows: if end == total { Follows::EndOfData } else { Follows::NotRequested } }
}

#[test]
fn all_ways_together_are_hardly_longer_than_the_message() {
    let mut cache = ReadAhead::new(Pool::default());
    let total = 30 * 1024 * 1024 + 17;
    let jobs = read(&mut cache, MailId(1), total);
    let ways: u64 = jobs.iter().map(|job| job.offset).sum();
    assert!(ways < 2 * total as u64, "{jobs:?}");
    assert_eq!(cache.streams.len(), 0, "nothing is left of a message that was read");
}

#[test]
fn a_message_whose_length_is_known_is_read_at_once_however_long() {
    let mut cache = ReadAhead::new(Pool::default());
    let total = 2 * MEMORY_LIMIT_OCTETS + 17;
    cache.announce(MailId(1), 0..total as u64);
    assert_eq!(read(&mut cache, MailId(1), total).len(), 1);
    assert_eq!((cache.streams.len(), cache.announced.len()), (0, 0));
}

#[test]
fn what_ended_for_lack_of_memory_goes_on_when_there_is_enough_again() {
    let pool = Pool::default();
    let mut cache = ReadAhead::new(pool.clone());
    let total = 4 * MEMORY_LIMIT_OCTETS;
    cache.announce(MailId(1), 0..total as u64);
    cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
    let job = cache.next_job(now(), MailId(1)).unwrap();
    assert_eq!(job.octets, total);
    let chunks = (0..MEMORY_LIMIT_OCTETS / CHUNK).map(|_| pool.take().into_bytes(CHUNK)).collect();
    cache.arrive(job, Some(ReadOutput { chunks, follows: Follows::NotRequested }));
    assert_eq!(cache.next_job(now(), MailId(1)), None, "there is no room");
    let mut offset = CHUNK;
    while offset < MEMORY_LIMIT_OCTETS {
        assert!(matches!(
            cache.take(now(), RequestId(1), MailId(1), offset as u64, CHUNK),
            Availability::Ready(_)
        ));
        offset += CHUNK;
        if let Some(job) = cache.next_job(now(), MailId(1)) {
            assert_eq!((job.offset, job.octets), (MEMORY_LIMIT_OCTETS as u64, total - MEMORY_LIMIT_OCTETS));
            break;
        }
    }
    assert_eq!(offset, MEMORY_LIMIT_OCTETS / 4 * 3, "not for a small piece, and before nothing is left");
}

#[test]
fn a_message_that_is_longer_than_was_announced_is_read_to_its_end() {
    let mut cache = ReadAhead::new(Pool::default());
    cache.announce(MailId(1), 0..3 * CHUNK as u64 + 5);
    assert!(read(&mut cache, MailId(1), 3 * READ_MIN_OCTETS).len() > 1);
    assert_eq!(cache.streams.len(), 0);
}

#[test]
fn announcements_that_nobody_comes_for_are_bounded() {
    let mut cache = ReadAhead::new(Pool::default());
    for id in 0..2 * ANNOUNCED_LIMIT as i64 {
        cache.announce(MailId(id), 0..1 << 20);
    }
    assert_eq!(cache.announced.len(), ANNOUNCED_LIMIT);
    cache.forget_all((0..2 * ANNOUNCED_LIMIT as i64).map(MailId));
    assert_eq!(cache.announced.len(), 0);
}

#[test]
fn the_memory_is_bounded_however_many_messages_are_read() {
    let pool = Pool::default();
    let mut cache = ReadAhead::new(pool.clone());
    // They come one after the other, while those before hold what they have.
    for id in 0..300 {
        cache.announce(MailId(id), 1 << 30..1 << 31);
        assert_eq!(cache.take(now(), RequestId(1), MailId(id), 1 << 30, CHUNK), Availability::Pending);
        let job = cache.next_job(now(), MailId(id)).expect("each gets what it waits for");
        let mut chunks = Vec::new();
        loop {
            chunks.push(pool.take().into_bytes(CHUNK));
            if !has_room(&pool, chunks.len() * CHUNK < job.least_octets) {
                break;
            }
        }
        cache.arrive(job, Some(ReadOutput { chunks, follows: Follows::NotRequested }));
        let limit = MEMORY_LIMIT_OCTETS + RESERVE_OCTETS + (id as usize + 1) * CHUNK;
        assert!(pool.taken_octets() <= limit, "{id}: {}", pool.taken_octets());
    }
    for id in 0..300 {
        assert_eq!(cache.next_job(now(), MailId(id)), None, "nothing is read before it is needed");
    }
    assert_eq!(cache.next_job_ahead(now()), None);
    cache.forget_all((0..300).map(MailId));
    assert_eq!(pool.taken_octets(), 0);
}

#[test]
fn while_nothing_else_is_to_be_read_the_next_message_is() {
    let mut cache = ReadAhead::new(Pool::default());
    let total = 5 * CHUNK;
    for id in 1..=3 {
        cache.announce(MailId(id), CHUNK as u64..total as u64);
    }
    cache.take(now(), RequestId(1), MailId(1), CHUNK as u64, CHUNK);
    let first = cache.next_job(now(), MailId(1)).unwrap();
    assert_eq!(cache.next_job_ahead(now()), None, "another one is being read");
    cache.arrive(first, Some(piece(first, total)));
    let second = cache.next_job_ahead(now()).unwrap();
    assert_eq!((second.id, second.offset, second.octets), (MailId(2), CHUNK as u64, 4 * CHUNK));
    cache.arrive(second, Some(piece(second, total)));
    assert_eq!(cache.next_job_ahead(now()), None, "one is enough");
    let taken = cache.take(now(), RequestId(2), MailId(2), CHUNK as u64, CHUNK);
    assert_eq!(taken, Availability::Ready(expected(CHUNK, CHUNK).into()));
    assert_eq!(cache.next_job_ahead(now()).unwrap().id, MailId(3));
}

#[test]
fn those_that_were_announced_first_are_read_first() {
    let mut cache = ReadAhead::new(Pool::default());
    for id in [7, 3, 5] {
        cache.announce(MailId(id), 0..CHUNK as u64);
    }
    assert_eq!(cache.next_job_ahead(now()).unwrap().id, MailId(7));
}

#[test]
fn while_a_message_is_not_read_to_its_end_no_other_takes_its_memory() {
    let mut cache = ReadAhead::new(Pool::default());
    cache.announce(MailId(1), 0..1 << 30);
    cache.announce(MailId(2), 0..CHUNK as u64);
    cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
    let job = cache.next_job(now(), MailId(1)).unwrap();
    let chunks = vec![Bytes::from(expected(0, CHUNK))];
    cache.arrive(job, Some(ReadOutput { chunks, follows: Follows::NotRequested }));
    assert_eq!(cache.next_job_ahead(now()), None);
}

#[test]
fn what_nobody_asks_for_any_more_is_not_kept_for_ever() {
    let begin = now();
    let pool = Pool::default();
    let mut cache = ReadAhead::new(pool.clone());
    let chunk = || vec![pool.take().into_bytes(CHUNK)];
    cache.announce(MailId(1), 0..CHUNK as u64);
    let ahead = cache.next_job_ahead(begin).unwrap();
    cache.arrive(ahead, Some(ReadOutput { chunks: chunk(), follows: Follows::EndOfData }));
    // Its connection is lost.
    cache.take(begin, RequestId(1), MailId(2), 0, 1);
    let job = cache.next_job(begin, MailId(2)).unwrap();
    cache.arrive(job, Some(ReadOutput { chunks: chunk(), follows: Follows::EndOfData }));
    // Others are asked for still, or waited for.
    cache.take(begin + STREAM_PATIENCE / 2, RequestId(2), MailId(3), 0, 1);
    let job = cache.next_job(begin + STREAM_PATIENCE / 2, MailId(3)).unwrap();
    cache.arrive(job, Some(ReadOutput { chunks: chunk(), follows: Follows::EndOfData }));
    cache.take(begin, RequestId(3), MailId(4), 0, 1);
    cache.next_job(begin + STREAM_PATIENCE, MailId(3));
    assert_eq!(cache.streams.keys().collect::<Vec<_>>(), [&MailId(3), &MailId(4)]);
    assert_eq!((cache.ahead, pool.taken_octets()), (None, CHUNK));
}

#[test]
fn a_request_that_waits_is_answered_also_when_the_piece_cannot_be_had() {
    let mut cache = ReadAhead::new(Pool::default());
    assert_eq!(cache.take(now(), RequestId(1), MailId(1), 0, CHUNK), Availability::Pending);
    let job = cache.next_job(now(), MailId(1)).unwrap();
    assert_eq!(cache.take(now(), RequestId(2), MailId(1), 0, CHUNK), Availability::ReadDirectly);
    cache.forget_all([MailId(1)]);
    assert_eq!(cache.arrive(job, None), Some((RequestId(1), None)));
    assert_eq!(cache.streams.len(), 0);
}

#[test]
fn a_message_that_is_gone_has_no_more_data() {
    let mut cache = ReadAhead::new(Pool::default());
    cache.take(now(), RequestId(1), MailId(1), 5, CHUNK);
    let job = cache.next_job(now(), MailId(1)).unwrap();
    let gone = ReadOutput { chunks: Vec::new(), follows: Follows::EndOfData };
    assert_eq!(cache.arrive(job, Some(gone)), Some((RequestId(1), Some(Bytes::new()))));
    cache.take(now(), RequestId(2), MailId(1), 5, CHUNK);
    assert!(cache.next_job(now(), MailId(1)).is_some(), "who asks again is not left without an answer");
}

#[test]
fn what_has_been_read_of_a_piece_can_be_had_while_the_rest_is_read() {
    let mut cache = ReadAhead::new(Pool::default());
    cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
    let job = cache.next_job(now(), MailId(1)).unwrap();
    let mut whole = piece(job, usize::MAX);
    let rest = whole.chunks.split_off(2);
    let part = ReadOutput { follows: Follows::MoreChunks, ..whole };
    let answer = cache.arrive(job, Some(part)).unwrap();
    assert_eq!(answer, (RequestId(1), Some(expected(0, CHUNK).into())));
    assert_eq!(cache.next_job(now(), MailId(1)), None, "it is being read still");
    let second = cache.take(now(), RequestId(2), MailId(1), CHUNK as u64, CHUNK);
    assert_eq!(second, Availability::Ready(expected(CHUNK, CHUNK).into()));
    cache.arrive(job, Some(ReadOutput { chunks: rest, follows: Follows::NotRequested }));
    let mut offset = 2 * CHUNK;
    while cache.take(now(), RequestId(3), MailId(1), offset as u64, CHUNK) != Availability::Pending {
        offset += CHUNK;
    }
    assert_eq!(offset, job.octets);
    assert_eq!(cache.next_job(now(), MailId(1)).unwrap().offset, offset as u64);
}

#[test]
fn a_part_of_a_piece_that_was_given_up_is_not_taken_for_another() {
    let mut cache = ReadAhead::new(Pool::default());
    cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
    let given_up = cache.next_job(now(), MailId(1)).unwrap();
    cache.forget(MailId(1));
    cache.take(now(), RequestId(2), MailId(1), 0, CHUNK);
    assert!(cache.next_job(now(), MailId(1)).is_some());
    assert_eq!(cache.arrive(given_up, Some(piece(given_up, usize::MAX))), None);
}

#[test]
fn who_begins_anew_gets_nothing_of_what_was_kept() {
    let mut cache = ReadAhead::new(Pool::default());
    cache.take(now(), RequestId(1), MailId(1), 0, CHUNK);
    let job = cache.next_job(now(), MailId(1)).unwrap();
    cache.arrive(job, Some(piece(job, usize::MAX)));
    let ahead = cache.next_job(now(), MailId(1));
    cache.forget_all([MailId(1)]);
    assert_eq!(cache.take(now(), RequestId(2), MailId(1), 0, CHUNK), Availability::Pending);
    if let Some(ahead) = ahead {
        assert_eq!(cache.arrive(ahead, Some(piece(ahead, usize::MAX))), None, "nobody waits for that");
    }
    assert!(cache.next_job(now(), MailId(1)).is_some());
}

#[test]
fn nothing_is_kept_of_mail_that_is_released() {
    let mut cache = ReadAhead::new(Pool::default());
    let total = 5 * CHUNK;
    let (begun, announced) = (MailId(1), MailId(2));
    for id in [begun, announced] {
        cache.announce(id, 0..total as u64);
    }
    cache.take(now(), RequestId(1), begun, 0, CHUNK);
    let job = cache.next_job(now(), begun).unwrap();
    cache.arrive(job, Some(piece(job, total))).unwrap();
    assert_eq!((cache.streams.len(), cache.announced.len()), (1, 2));
    cache.release(&[begun, announced]);
    assert_eq!((cache.streams.len(), cache.announced.len()), (0, 0));
    assert_eq!(cache.next_job_ahead(now()), None);
}

#[test]
fn a_request_for_released_mail_is_answered_and_what_a_later_claim_announces_stays() {
    let mut cache = ReadAhead::new(Pool::default());
    let (id, total) = (MailId(1), 5 * CHUNK);
    assert_eq!(cache.take(now(), RequestId(1), id, 0, CHUNK), Availability::Pending);
    let job = cache.next_job(now(), id).unwrap();
    cache.release(&[id]);
    cache.announce(id, CHUNK as u64..total as u64);
    let (request, octets) = cache.arrive(job, Some(piece(job, total))).unwrap();
    assert_eq!((request, octets.unwrap()), (RequestId(1), Bytes::from(expected(0, CHUNK))));
    assert_eq!((cache.streams.len(), cache.announced.len()), (0, 1));
}
