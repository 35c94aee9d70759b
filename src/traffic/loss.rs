//! How many of a proxy's log lines were counted and how many were not: the kernel throws datagrams away when nobody reads
//! them in time, and counts them, exactly, for each socket.

use std::fs;
use std::io;

use rustix::fd::AsFd;
use serde::{Deserialize, Serialize};

use crate::text::thousands;

/// What is done with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours and was taken in.
    Counted,
    /// It is ours and says nothing: it cannot be read, or nobody knows which instance it is about.
    Unread,
    /// It is about something else.
    Other,
}

/// Log lines since a listener began. No number goes backwards for the listener's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLoss {
    /// Datagrams that came, with whatever lines.
    pub came: u64,
    /// Datagrams that the kernel threw away because the receive buffer was full.
    pub dropped: u64,
    /// Lines of ours that were taken in.
    pub counted: u64,
    /// Lines of ours that came and say nothing.
    pub unread: u64,
    /// Size of the receive buffer in bytes, as it was asked for (the kernel takes twice as much).
    pub room: u64,
    /// Whether only response times are told by the lines, and requests and errors by the proxy's own counters.
    pub latency_only: bool,
}

/// The part of all lines that may be lost: one in a hundred.
const MOST: f64 = 0.01;

impl LogLoss {
    /// Lines that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dropped + self.unread
    }

    /// The part of the lines that was lost, 0 to 1. What was thrown away may have been anybody's, so it is a part of all
    /// that was sent; what says nothing is a part of ours.
    #[must_use]
    pub fn part(&self) -> f64 {
        let part = |lost: u64, kept: u64| if lost == 0 { 0.0 } else { lost as f64 / (lost + kept) as f64 };
        (part(self.dropped, self.came) + part(self.unread, self.counted)).min(1.0)
    }

    /// Whether so many were lost that the others are no evidence.
    #[must_use]
    pub fn too_many(&self) -> bool {
        self.part() > MOST
    }

    /// What came and was lost since `earlier`; all of it when that was of another listener, which had counted more.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.came < earlier.came || self.dropped < earlier.dropped {
            return *self;
        }
        Self {
            came: self.came - earlier.came,
            dropped: self.dropped - earlier.dropped,
            counted: self.counted.saturating_sub(earlier.counted),
            unread: self.unread.saturating_sub(earlier.unread),
            ..*self
        }
    }

    /// Adds what came and was lost at another time.
    pub fn add(&mut self, more: &Self) {
        self.came += more.came;
        self.dropped += more.dropped;
        self.counted += more.counted;
        self.unread += more.unread;
        (self.room, self.latency_only) = (more.room, more.latency_only);
    }

    /// What was lost, of which proxy, and what to do about it.
    #[must_use]
    pub fn words(&self, proxy: &str) -> String {
        let share = format!("{:.1}%", self.part() * 100.0);
        let mut out = format!("{share} of the log lines of proxy {proxy} were lost");
        if self.dropped > 0 {
            let all = thousands(self.came + self.dropped);
            let cure = if self.room < WANTED_ROOM {
                format!(
                    "its receive buffer has {} kB: set net.core.rmem_max to {WANTED_ROOM} and start the controller again",
                    self.room >> 10
                )
            } else {
                "the machine is too busy: give the controller more processor time, or release when there is less traffic"
                    .to_owned()
            };
            out += &format!(" ({} of {all} were not read in time; {cure})", thousands(self.dropped));
        }
        if self.unread > 0 {
            out += &format!(
                " ({} of {} cannot be read, or are of an instance that nobody knows; 'pilothouse check' prints what \
                 they must look like)",
                thousands(self.unread),
                thousands(self.unread + self.counted)
            );
        }
        out
    }
}

/// The receive buffer that is asked for, in bytes. It holds about 40,000 short lines (measured): a second at 35,000 a
/// second in which the controller does something else.
pub(super) const WANTED_ROOM: u64 = 16 << 20;

/// Makes a socket's receive buffer as large as that, or as large as is allowed; its size in bytes, as it can be asked for.
pub(super) fn make_room(socket: impl AsFd, bytes: u64) -> io::Result<u64> {
    use rustix::net::sockopt;
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
    if sockopt::set_socket_recv_buffer_size_force(&socket, wanted).is_err() {
        // Without the right to more, up to what the machine allows everybody.
        sockopt::set_socket_recv_buffer_size(&socket, wanted)?;
    }
    Ok(sockopt::socket_recv_buffer_size(&socket)? as u64 / 2)
}

/// What the kernel threw away, added up: its number for a socket has 32 bits and begins anew after the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drops {
    inode: u64,
    table: &'static str,
    last: u32,
    total: u64,
}

impl Drops {
    /// Of this socket, from now on. An error when the kernel does not tell: what may be lost unseen is no evidence.
    pub(super) fn of(socket: impl AsFd, v6: bool) -> io::Result<Self> {
        let inode = rustix::fs::fstat(socket)?.st_ino;
        let table = if v6 { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
        let mut drops = Self { inode, table, last: 0, total: 0 };
        drops.last = drops.ask()?;
        Ok(drops)
    }

    /// All that was thrown away so far. What cannot be asked now shows the next time.
    pub(super) fn total(&mut self) -> u64 {
        if let Ok(now) = self.ask() {
            self.total += u64::from(now.wrapping_sub(self.last));
            self.last = now;
        }
        self.total
    }

    fn ask(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.table)?;
        text.lines()
            .find_map(|line| dropped(line, self.inode))
            .ok_or_else(|| io::Error::other(format!("{} does not tell how many lines are lost", self.table)))
    }
}

/// The last column of a line of `/proc/net/udp`, when it is this socket's.
fn dropped(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace();
    let found = words.nth(9)?.parse::<u64>().ok()? == inode;
    words.last().filter(|_| found)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = " 1889: 0100007F:B815 00000000:0000 07 00000000:00068000 00:00000000 00000000     0        0 25578 2 0000000072b4f0a0 1488";
        assert_eq!((dropped(line, 25578), dropped(line, 25579)), (Some(1488), None));
        assert_eq!(dropped("  sl  local_address rem_address   st tx_queue rx_queue tr", 1), None);
    }

    #[test]
    fn more_than_one_in_a_hundred_is_too_many_and_both_kinds_count() {
        let loss =
            |came, dropped, counted, unread| LogLoss { came, dropped, counted, unread, ..LogLoss::default() };
        assert!(!LogLoss::default().too_many(), "nothing came, and nothing is lost");
        assert!(!loss(9_900, 100, 9_900, 0).too_many());
        assert!(loss(9_900, 101, 9_900, 0).too_many());
        assert!(loss(0, 1, 0, 0).too_many(), "all of it");
        assert!(loss(10_000, 0, 50, 1).too_many(), "most of what came is about something else");
        assert!(loss(10_000, 60, 99_400, 600).too_many(), "together");
        assert!((loss(0, 5, 0, 5).part() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn words_say_how_many_and_what_to_do() {
        let mut loss = LogLoss { came: 51_770, dropped: 1_219, room: 208 << 10, ..LogLoss::default() };
        assert_eq!(
            loss.words("lb"),
            "2.3% of the log lines of proxy lb were lost (1,219 of 52,989 were not read in time; its receive buffer has \
             208 kB: set net.core.rmem_max to 16777216 and start the controller again)"
        );
        loss.room = WANTED_ROOM;
        assert!(loss.words("lb").contains("too busy"), "{}", loss.words("lb"));
        let unread = LogLoss { came: 99, counted: 30, unread: 10, ..LogLoss::default() };
        let said = unread.words("lb");
        assert!(said.starts_with("25.0% of") && said.contains("(10 of 40 cannot be read"), "{said}");
    }

    #[test]
    fn differences_add_up_and_another_listener_begins_anew() {
        let one = LogLoss { came: 10, dropped: 3, counted: 7, unread: 1, room: 9, latency_only: true };
        let mut two = one;
        two.add(&LogLoss { came: 5, ..one });
        assert_eq!(two.since(&one), LogLoss { came: 5, ..one });
        assert_eq!(one.since(&two), one);
    }
}
