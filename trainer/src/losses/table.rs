//! The methods. One line each.

use super::Method;

macro_rules! methods {
    ($($file:ident,)+) => {
        /// Every method that a term can name.
        pub static METHODS: &[&Method] = &[$(&super::$file::METHOD),+];
    };
}

methods! {
    ce,
    bce,
    // Answers.
    kd,
    mse_logits,
    dkd,
    nkd,
    dist,
    mlkd,
    wsld,
    ofa,
    srrl,
    codistill,
    // Features.
    ab,
    fitnets,
    at,
    ofd,
    review,
    vid,
    simkd,
    nst,
    fsp,
    ft,
    cosine,
    // Relations.
    rkd_d,
    rkd_a,
    sp,
    cc,
    pkt,
    crd,
    // Sequences and text.
    tat,
    soft_dtw,
    tinybert_attention,
    tinybert_hidden,
    attention_relation,
    // A network's own.
    byot,
    tf_kd,
    ps_kd,
    cs_kd,
}

/// The method of this name.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().copied().find(|method| method.name == name)
}
