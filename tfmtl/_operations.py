"""Operations of TensorFlow that a saved network may name: functions of tensors alone, without files or Python code."""

from __future__ import annotations

from typing import Final

_BY_NAMESPACE: Final = {
    "": """
        abs acos acosh add add_n approx_top_k argmax argmin argsort as_string asin asinh atan atan2 atanh
        batch_gather batch_to_space bitcast boolean_mask broadcast_dynamic_shape broadcast_static_shape broadcast_to
        cast clip_by_global_norm clip_by_norm clip_by_value complex concat constant convert_to_tensor cos cosh
        cumsum div div_no_nan divide dynamic_partition dynamic_stitch edit_distance eig eigvals einsum ensure_shape
        equal exp expand_dims extract_volume_patches eye fill fingerprint floor floor_div floordiv floormod gather
        gather_nd greater greater_equal guarantee_const histogram_fixed_width histogram_fixed_width_bins identity
        identity_n less less_equal linspace logical_and logical_not logical_or matmul matrix_square_root maximum
        meshgrid minimum multiply negative norm not_equal one_hot ones ones_like pad parallel_stack pow
        random_index_shuffle range rank realdiv reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean
        reduce_min reduce_prod reduce_sum repeat required_space_to_batch_paddings reshape reverse reverse_sequence
        roll round saturate_cast scalar_mul scatter_nd searchsorted sequence_mask shape shape_n sigmoid sign sin
        sinh size slice sort space_to_batch space_to_batch_nd sparse_tensor_to_dense split sqrt square squeeze stack
        stop_gradient strided_slice subtract tan tanh tensor_scatter_nd_add tensor_scatter_nd_max
        tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile transpose truediv
        truncatediv truncatemod unique unique_with_counts unravel_index unstack where where_v2 zeros zeros_like
        """,
    "__operators__": "add eq getitem ne ragged_getitem",
    "bitwise": "bitwise_and bitwise_or bitwise_xor invert left_shift right_shift",
    "debugging": """
        assert_all_finite assert_equal assert_greater assert_greater_equal assert_integer assert_less
        assert_less_equal assert_near assert_negative assert_non_negative assert_non_positive assert_none_equal
        assert_positive assert_rank assert_rank_at_least assert_rank_in assert_scalar assert_shapes assert_type
        check_numerics
        """,
    "dtypes": "cast complex saturate_cast",
    "image": """
        adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop
        convert_image_dtype crop_and_resize crop_to_bounding_box extract_glimpse extract_patches flip_left_right
        flip_up_down grayscale_to_rgb hsv_to_rgb image_gradients pad_to_bounding_box per_image_standardization
        resize resize_images resize_with_crop_or_pad resize_with_pad rgb_to_grayscale rgb_to_hsv rot90 sobel_edges
        total_variation transpose
        """,
    "linalg": """
        adjoint band_part banded_triangular_solve cholesky cholesky_solve cross det diag diag_part eig eigh
        eigh_tridiagonal eigvals eigvalsh einsum expm eye global_norm inv l2_normalize logdet logm lstsq lu
        lu_matrix_inverse lu_reconstruct lu_solve matmul matrix_rank matrix_transpose matvec norm normalize pinv qr
        set_diag slogdet solve sqrtm svd tensor_diag tensor_diag_part tensordot trace triangular_solve
        tridiagonal_matmul tridiagonal_solve
        """,
    "math": """
        abs accumulate_n acos acosh add add_n angle approx_max_k approx_min_k argmax argmin asin asinh atan atan2
        atanh bessel_i0 bessel_i0e bessel_i1 bessel_i1e betainc bincount ceil confusion_matrix conj cos cosh
        count_nonzero cumprod cumsum cumulative_logsumexp digamma divide divide_no_nan equal erf erfc erfcinv
        erfinv exp expm1 floor floordiv floormod greater greater_equal igamma igammac imag in_top_k
        invert_permutation is_finite is_inf is_nan is_non_decreasing is_strictly_increasing l2_normalize lbeta less
        less_equal lgamma log log1p log_sigmoid log_softmax logical_and logical_not logical_or logical_xor maximum
        minimum mod multiply multiply_no_nan ndtri negative nextafter not_equal polygamma polyval pow real
        reciprocal reciprocal_no_nan reduce_all reduce_any reduce_euclidean_norm reduce_logsumexp reduce_max
        reduce_mean reduce_min reduce_prod reduce_std reduce_sum reduce_variance rint round rsqrt scalar_mul
        segment_max segment_mean segment_min segment_prod segment_sum sigmoid sign sin sinh sobol_sample softmax
        softplus softsign sqrt square squared_difference subtract tan tanh top_k truediv unsorted_segment_max
        unsorted_segment_mean unsorted_segment_min unsorted_segment_prod unsorted_segment_sqrt_n
        unsorted_segment_sum xdivy xlog1py xlogy zero_fraction zeta
        """,
    "nn": """
        atrous_conv2d atrous_conv2d_transpose avg_pool avg_pool1d avg_pool2d avg_pool3d
        batch_norm_with_global_normalization batch_normalization bias_add compute_accidental_hits
        compute_average_loss conv1d conv1d_transpose conv2d conv2d_transpose conv3d conv3d_transpose conv_transpose
        convolution crelu ctc_loss depth_to_space depthwise_conv2d dilation2d dropout elu embedding_lookup
        embedding_lookup_sparse erosion2d gelu in_top_k isotonic_regression l2_loss l2_normalize leaky_relu
        local_response_normalization log_poisson_loss log_softmax lrn max_pool max_pool1d max_pool2d max_pool3d
        max_pool_with_argmax moments normalize_moments pool relu relu6 safe_embedding_lookup_sparse
        scale_regularization_loss selu separable_conv2d sigmoid sigmoid_cross_entropy_with_logits silu softmax
        softmax_cross_entropy_with_logits softplus softsign space_to_batch space_to_depth
        sparse_softmax_cross_entropy_with_logits sufficient_statistics swish tanh top_k
        weighted_cross_entropy_with_logits weighted_moments with_space_to_batch xw_plus_b zero_fraction
        """,
    "quantization": """
        dequantize fake_quant_with_min_max_args fake_quant_with_min_max_vars
        fake_quant_with_min_max_vars_per_channel quantize quantize_and_dequantize quantize_and_dequantize_v2
        """,
    "ragged": """
        boolean_mask constant cross cross_hashed range row_splits_to_segment_ids segment_ids_to_row_splits stack
        stack_dynamic_partitions
        """,
    "random": """
        categorical gamma normal poisson shuffle stateless_binomial stateless_categorical stateless_gamma
        stateless_normal stateless_poisson stateless_truncated_normal stateless_uniform truncated_normal uniform
        """,
    "sets": "difference intersection size union",
    "signal": """
        dct fft fft2d fft3d fftnd fftshift frame hamming_window hann_window idct ifft ifft2d ifft3d ifftnd ifftshift
        irfft irfft2d irfft3d irfftnd overlap_and_add rfft rfft2d rfft3d rfftnd
        """,
    "sparse": """
        add bincount concat cross cross_hashed expand_dims eye fill_empty_rows from_dense mask maximum minimum
        reduce_max reduce_sum reorder reset_shape reshape retain segment_mean segment_sqrt_n segment_sum slice
        softmax sparse_dense_matmul split to_dense to_indicator transpose
        """,
    "strings": """
        as_string bytes_split format join length lower ngrams reduce_join regex_full_match regex_replace split strip
        substr to_hash_bucket to_hash_bucket_fast to_hash_bucket_strong to_number unicode_decode
        unicode_decode_with_offsets unicode_encode unicode_script unicode_split unicode_split_with_offsets
        unicode_transcode unsorted_segment_join upper
        """,
}

OPERATIONS: Final = frozenset(
    f"{namespace}.{name}" if namespace else name for namespace, names in _BY_NAMESPACE.items() for name in names.split()
)
"""Names as a saved `TFOpLambda` holds them, without the prefix `compat.v1.`."""

_ATTRIBUTES: Final = """
    bounding_shape dense_shape dtype flat_values indices merge_dims nested_row_lengths nested_row_splits
    nested_value_rowids nrows row_lengths row_limits row_splits row_starts shape to_sparse to_tensor value_rowids values
    with_flat_values with_row_splits_dtype with_values
    from_nested_row_lengths from_nested_row_splits from_nested_value_rowids from_row_lengths from_row_limits
    from_row_splits from_row_starts from_sparse from_tensor from_uniform_row_length from_value_rowids
"""

TENSOR_ATTRIBUTES: Final = frozenset(_ATTRIBUTES.split())
"""Methods and properties of ragged and sparse tensors that a saved network may name."""


def is_operation(name: object) -> bool:
    """Return whether a saved network may name an operation.

    Example:
        >>> [is_operation(name) for name in ("math.add", "compat.v1.gather", "io.write_file", "print")]
        [True, True, False, False]
    """
    return isinstance(name, str) and name.removeprefix("compat.v1.") in OPERATIONS
