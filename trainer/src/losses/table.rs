//! The methods. One line each.

use super::{
    Method, byot, cc, ce, codistill, crd, cs_kd, dist, dkd, kd, mlkd, mse_logits, nkd, ofa, pkt, ps_kd, rkd_a, rkd_d,
    sp, srrl, tf_kd, wsld,
};

/// Every method that a term can name.
#[rustfmt::skip]
pub static METHODS: &[&Method] = &[
    &ce::METHOD,
    // Answers.
    &kd::METHOD,
    &mse_logits::METHOD,
    &dkd::METHOD,
    &nkd::METHOD,
    &dist::METHOD,
    &mlkd::METHOD,
    &wsld::METHOD,
    &ofa::METHOD,
    &srrl::METHOD,
    &codistill::METHOD,
    // Relations.
    &rkd_d::METHOD,
    &rkd_a::METHOD,
    &sp::METHOD,
    &cc::METHOD,
    &pkt::METHOD,
    &crd::METHOD,
    // A network's own.
    &byot::METHOD,
    &tf_kd::METHOD,
    &ps_kd::METHOD,
    &cs_kd::METHOD,
];
