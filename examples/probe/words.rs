//! Texts: said on standard output, made safe to show where others wrote them, and numbers made readable.

use std::{fmt::Display, io::Write, time::Duration};

/// The longest text of others that is shown, in characters.
const MAX_SHOWN: usize = 120;

/// Writes a line to standard output. That nobody reads it is no reason to panic, as `println!` would.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A text that somebody else wrote, on one line, without control characters, and cut.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.trim().chars().count() > MAX_SHOWN {
        shown.push('…');
    }
    shown
}

/// A time with about three digits.
pub(crate) fn took(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0..0.01 => format!("{:.2} ms", seconds * 1e3),
        0.01..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..60.0 => format!("{seconds:.1} s"),
        60.0..3600.0 => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        _ => format!("{:.0} h {:.0} min", (seconds / 3600.0).floor(), seconds % 3600.0 / 60.0),
    }
}

/// A number of bytes, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
