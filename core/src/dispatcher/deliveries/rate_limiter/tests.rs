use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn taken(limit: RateLimit, limiter: &mut RateLimiter, now: Instant) -> u32 {
    let mut taken = 0;
    while limiter.take(limit, now).is_ok() {
        taken += 1;
    }
    taken
}

#[test]
fn a_burst_is_one_seconds_worth() {
    let limit = RateLimit { transactions: 5, per: Duration::from_secs(1) };
    let mut limiter = RateLimiter::default();
    assert_eq!(taken(limit, &mut limiter, at(0)), 5);
    assert_eq!(limiter.take(limit, at(0)), Err(at(200)));
    assert_eq!(taken(limit, &mut limiter, at(400)), 2);
    assert_eq!(taken(limit, &mut limiter, at(60_000)), 5);
}

#[test]
fn a_slow_rate_lets_one_through_at_a_time() {
    let limit = RateLimit { transactions: 2, per: Duration::from_secs(60) };
    let mut limiter = RateLimiter::default();
    assert_eq!(taken(limit, &mut limiter, at(0)), 1);
    assert_eq!(limiter.take(limit, at(10_000)), Err(at(30_000)));
    assert_eq!(taken(limit, &mut limiter, at(30_000)), 1);
}
