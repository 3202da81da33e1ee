"""Which models keep rows apart that are put into one sequence.

Measured by tests/bench/packing_isolation.py with transformers 5.23 and 5.24 on a CPU, with sdpa and eager attention,
in the batches of TRL's own collator.
"""

import importlib.util

_APART = """
    apertus apertus1p5_text arcee aria_text axk1 axk2 beam bitnet codegen cohere cohere2 cohere2_moe cohere2_vision
    cohere_compass_text cosmos3_omni ctrl cwm deepseek_v3 deepseek_v32 deepseek_v4 deepseek_vl deepseek_vl_hybrid
    diffllama doge dory dots1 emu3 ernie4_5 ernie4_5_moe exaone exaone4 exaone4_5 exaone_moe flex_olmo flint fuyu gemma
    gemma2 gemma3 gemma3_text gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text git glm glm4 glm4_moe
    glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gptj granite
    granite_docling granite_swa granitemoe granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hy_v4 hyperclovax hyperclovax_vision_v2 idefics2 idefics3 internlm3 internvl iquestcoder jais2
    janus jetmoe kimi_k25 kolibri1 laguna lighton_ocr llama llama4 llama4_text llava llava_next llava_next_video
    llava_onevision longcat_flash mellum mimo_v2_flash minicpm3 minimax_m2 minimax_m3_vl minimax_m3_vl_text ministral
    ministral3 mistral mistral3 mistral_large4 mixtral mllama modernbert-decoder moshi moss_transcribe_diarize
    muse_glimmer muse_spark nanochat nemotron olmo olmo2 olmo3 olmoe ovis2 persimmon phi phi3 phi4_multimodal phimoe
    pp_chart2table qianfan_ocr qwen2 qwen2_moe qwen3 qwen3_moe qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe sarvam_mla
    sarvam_moe seed_oss shieldgemma2 smollm3 smolvlm solar_open stablelm starcoder2 unlimited_ocr vaultgemma
    video_llama_3 video_llava vipllava youtu
"""
# They take no notice of where positions begin anew: by a mask without positions, a recurrence, or a convolution.
_MIXING = """
    afmoe biogpt bloom blt cosmos3_edge ernie4_5_vl_moe falcon falcon_mamba gpt_oss inkling2 inkling2_text
    inkling_text jamba kosmos-2.5 lfm3 lfm3_vl mamba mamba2 minimax mpt openai-gpt opt recurrent_gemma rwkv xglm
    xlstm zaya
"""
# transformers refuses such batches for them, unless a compiled kernel keeps their short convolutions apart.
_NEED_CAUSAL_CONV1D = """
    bailing_hybrid bamba falcon_h1 glm5_next inkling2_loop_text kimi_linear lara_mini lfm2 lfm2_moe minicpm_ocr
    minicpmv4_6 minicpmv4_7 nemotron_h nemotron_h_omni olmo_hybrid qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text
    qwen3_next qwen4_exp qwen4_exp_text zamba zamba2
"""


def why_mixed(model_type: str, *, on_gpu: bool) -> str:
    """Why rows in one sequence would not stay apart, in the words that follow a model's name; empty where they do."""
    if model_type in _APART.split():
        return ""
    if model_type in _MIXING.split():
        return "lets every row in a sequence see those before it"
    if model_type not in _NEED_CAUSAL_CONV1D.split():
        return "is of a type for which nobody has measured that rows in a sequence stay apart"
    if not on_gpu:
        return "keeps rows in a sequence apart on a GPU only, by the package causal-conv1d"
    if importlib.util.find_spec("causal_conv1d") is None:
        return "keeps rows in a sequence apart by the package causal-conv1d only, which is not installed"
    return ""
