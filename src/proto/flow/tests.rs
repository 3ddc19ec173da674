mod simulated;

use super::*;

#[test]
fn credit_beyond_max_is_a_violation_naming_the_field() {
    let mut credit = SendCredit::new(10, 100);
    assert_eq!(credit.grant(100), Ok(true));
    let violation = credit.grant(101).unwrap_err();
    assert_eq!(violation.code(), CloseCode::FORBIDDEN);
    assert!(violation.rule().contains("credit"));
    credit.spend(100);
    assert_eq!(credit.grant(200), Ok(true));
    assert!(credit.grant(u64::MAX).is_err());
}

#[test]
fn lower_credit_is_ignored() {
    let mut credit = SendCredit::new(50, 100);
    assert_eq!(credit.grant(20), Ok(false));
    assert_eq!(credit.available(), 50);
}

#[test]
fn data_up_to_the_credit_is_taken_and_one_byte_more_is_not() {
    let mut window = RecvWindow::new(8);
    assert_eq!(window.on_data(8), Ok(()));
    assert_eq!(window.on_data(1).unwrap_err().code(), CloseCode::CREDIT);
}

const KIB: u64 = 1024;

fn lender() -> Lender {
    Lender::new(32 << 20, 512 * KIB, 8 << 20)
}

/// A window that was just begun.
fn window(lender: &mut Lender) -> RecvWindow {
    let mut window = RecvWindow::new(16 * KIB);
    window.begin(lender);
    window
}

/// The peer sends what it may, and `n` of it are read. Gives the size of the window from here on.
fn read(window: &mut RecvWindow, lender: &mut Lender, n: u64, rtt: Duration) -> u64 {
    read_at(window, lender, n, rtt, Instant::now())
}

fn read_at(window: &mut RecvWindow, lender: &mut Lender, n: u64, rtt: Duration, now: Instant) -> u64 {
    let room = window.granted - window.received;
    window.on_data(room as usize).unwrap();
    window.consume(n as usize);
    lender.drained(n as usize);
    window.renew(now, Some(rtt), lender);
    window.size
}

#[test]
fn credit_is_due_at_half_a_window() {
    let mut lender = Lender::new(0, 8, 8);
    let mut window = RecvWindow::new(8);
    window.on_data(8).unwrap();
    assert!(!window.consume(3));
    assert!(window.consume(1));
    assert_eq!(window.renew(Instant::now(), None, &mut lender), 12);
    assert!(!window.consume(1));
}

#[test]
fn an_eighth_of_what_is_free_is_lent() {
    let mut lender = Lender::new(800, 240, 240);
    assert_eq!((lender.lend(240), lender.lend(240)), (100, 87));
    lender.give_back(100);
    assert_eq!(lender.free(), 713);
}

#[test]
fn busy_streams_share_a_first_window_and_one_alone_has_it_for_itself() {
    let mut lender = lender();
    let mut windows: Vec<RecvWindow> = (0..4).map(|_| window(&mut lender)).collect();
    for _ in 0..3 {
        for window in &mut windows {
            read(window, &mut lender, 64 * KIB, NEAR);
        }
    }
    assert!(windows.iter().all(|window| window.size == 128 * KIB), "{windows:?}");
    assert_eq!(read(&mut windows[0], &mut lender, 64 * KIB, NEAR), 128 * KIB, "others read as much meanwhile");
    assert_eq!(read(&mut windows[0], &mut lender, 64 * KIB, NEAR), 512 * KIB);
}

#[test]
fn beside_small_requests_a_busy_stream_has_an_eighth_of_a_window_until_they_are_over() {
    let mut lender = lender();
    let mut window = window(&mut lender);
    let mut turn = |beside: usize| {
        lender.drained(beside);
        read(&mut window, &mut lender, 64 * KIB, NEAR)
    };
    assert_eq!(turn(0), 512 * KIB);
    turn(100);
    assert_eq!(turn(0), 64 * KIB);
    (2..COMPANY).for_each(|_| assert_eq!(turn(0), 64 * KIB));
    turn(0);
    assert_eq!(turn(0), 512 * KIB);
}

#[test]
fn over_a_long_way_each_has_its_own() {
    let mut lender = lender();
    let mut window = window(&mut lender);
    lender.drained(1 << 30);
    assert_eq!(read(&mut window, &mut lender, 128 * KIB, NEAR + Duration::from_nanos(1)), 512 * KIB);
    lender.drained(1 << 30);
    assert_eq!(read(&mut window, &mut lender, 128 * KIB, NEAR), 64 * KIB, "an eighth at the least");
}

#[test]
fn no_window_is_larger_than_announced_nor_than_what_is_free() {
    let (mut now, rtt) = (Instant::now(), Duration::from_secs(1));
    for (free, most) in [(1 << 30, 8 << 20), (8 << 20, 1 << 40)] {
        let mut lender = Lender::new(free, 256 * KIB, most);
        let mut window = window(&mut lender);
        for _ in 1..40 {
            let half = window.size / 2;
            now += Duration::from_millis(1);
            let size = read_at(&mut window, &mut lender, half, rtt, now);
            assert!(size <= most && window.loan + lender.free() == free as u64, "{window:?}");
        }
        assert!(window.size == most || lender.free() < free as u64 / 100, "{window:?}");
    }
}

#[test]
fn what_was_granted_is_owed_until_it_is_read_and_all_comes_back_at_the_end() {
    let mut lender = lender();
    let free = lender.free();
    let mut window = window(&mut lender);
    lender.drained(1 << 40);
    assert_eq!(read(&mut window, &mut lender, 8 * KIB, NEAR), 64 * KIB, "others read far more");
    assert_eq!(free - lender.free(), 512 * KIB - 16 * KIB - 8 * KIB);
    lender.drained(1 << 40);
    read(&mut window, &mut lender, 496 * KIB, NEAR);
    assert_eq!(free - lender.free(), 64 * KIB - 16 * KIB);
    window.end(&mut lender);
    assert_eq!(lender.free(), free);
}

#[test]
fn a_stream_that_reads_all_alone_gets_its_whole_window_as_far_as_it_can_be_lent() {
    let mut lender = Lender::new(100 * KIB as usize, 512 * KIB, 8 << 20);
    let mut window = window(&mut lender);
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let half = window.size / 2;
        sizes.push(read(&mut window, &mut lender, half, NEAR));
        assert!(window.size - window.base + lender.free() <= 100 * KIB);
    }
    assert!(sizes.is_sorted() && sizes[0] < sizes[3], "{sizes:?}");
}
