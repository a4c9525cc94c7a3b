//! The calibration methods. One line each.
