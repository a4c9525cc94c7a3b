//! SIGINT and SIGTERM as a flag that training looks at after each step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kd_runtime::Result;
use kd_runtime::error::Exit;
use kd_runtime::files::refuse_read;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether to stop, and by which signal.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Sees SIGINT and SIGTERM from now on. A second signal ends the program at once.
    pub fn install() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let exit = 128 + signal;
            let pressed = Arc::new(std::sync::atomic::AtomicBool::new(false));
            // In this order: the first signal finds the flag down, sets it, and asks to stop.
            let ends = signal_hook::flag::register_conditional_shutdown(signal, exit, Arc::clone(&pressed));
            let marks = signal_hook::flag::register(signal, pressed);
            let asks = signal_hook::flag::register_usize(signal, Arc::clone(&stop.0), signal as usize);
            for registered in [ends, marks, asks] {
                registered.map_err(|error| refuse_read("signals".as_ref(), &error).with_exit(Exit::Lacking))?;
            }
        }
        Ok(stop)
    }

    /// Asks to stop, as SIGTERM would.
    pub fn ask(&self) {
        self.0.store(SIGTERM as usize, Ordering::SeqCst);
    }

    /// The signal that asked to stop, and the exit status that goes with it.
    pub fn asked(&self) -> Option<(&'static str, Exit)> {
        match i32::try_from(self.0.load(Ordering::SeqCst)) {
            Ok(SIGINT) => Some(("SIGINT", Exit::Interrupted)),
            Ok(SIGTERM) => Some(("SIGTERM", Exit::Terminated)),
            _ => None,
        }
    }
}
