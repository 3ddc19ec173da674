//! The mux machine.

mod config;
mod error;
mod event;
mod flood;
mod flow;
mod hello;
mod input;
mod output;
mod recv_half;
mod replay;
mod schedule;
mod send_half;
mod session;
mod streams;
mod timer;
mod views;

pub use config::{InvalidConfig, SessionConfig};
pub use error::{OpenError, SessionEnd, StreamError, Violation};
pub use event::{DeadCause, Event};
pub use hello::{VERSION, check_bounds, check_hello};
pub use recv_half::Read;
pub use session::{Incoming, Opened, Role, Session, SessionStats};
pub use views::{RecvView, SendView};
