"""RNNsearch, equation by equation: Bahdanau, Cho and Bengio (2014), Appendix A.

One file per section of the appendix. Shapes and weights use the paper's letters:

    B  sentences of a batch        Tx, Ty  source and target lengths, end symbol included
    m  embedding size              n       hidden units, per direction in the encoder
    n' units of the alignment      l       maxout units
    K_x, K_y  vocabulary sizes

    paper              code             shape                      file
    E x_j, E y_{i-1}   Ex, Ey           (B, Tx, m), (B, m)         embedding.py
    h_j                h                (B, Tx, 2n)                encoder.py, Eq. (7)
    U_a h_j            keys             (B, Tx, n')                attention.py, A.1.2
    e_ij               energy           (B, Tx)                    attention.py, A.1.2
    alpha_ij           alpha            (B, Tx), (B, Ty, Tx)       attention.py, Eq. (6)
    c_i                c                (B, 2n)                    attention.py, Eq. (5)
    s_{i-1}, s_i       s_prev, s        (B, n)                     decoder.py
    z_i, r_i, s~_i     z, r, s_tilde    (B, n)                     gated_unit.py, A.1.1
    t~_i, t_i          t_tilde, t       (B, 2l), (B, l)            decoder.py, A.2.2

`Ex` and `Ey` are never `e`, which is the energy. The paper uses `e` for both.
"""

from seq2seq.model import build_transformer  # noqa: F401 - registers its builders
from seq2seq.model.build import build_model
from seq2seq.model.encoder_decoder import EncoderDecoder

__all__ = ["EncoderDecoder", "build_model"]
