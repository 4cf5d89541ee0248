/**
 * The viewer's texts in English, Chinese and Japanese. Node titles, inputs and tooltips are in
 * `locales/`.
 *
 * @typedef {(key: string, values?: Record<string, unknown>) => string} Translate the text of a key
 *   with its {placeholders} filled in; a key that is not known is returned as it is
 */

/** The signals of a run, in the order of their buttons; each has a name and a help text below. */
export const SIGNALS = ["artifact", "trajectory", "contrast", "posterior"];

const EN = {
  artifact: "Artifact",
  trajectory: "Trajectory",
  contrast: "Contrast",
  posterior: "Posterior",
  artifactHelp: "Where something is likely malformed: the best detector of this run, {signal}.",
  trajectoryHelp: "How long each pixel stayed undecided during sampling.",
  contrastHelp: "Where the image shows the prompt no better than any other image would.",
  posteriorHelp: "How far each pixel would move if the model's weights were other plausible ones.",
  together: "contrast and trajectory together",
  notComputed: "Not computed in this run.",
  empty: "Run the workflow to see where the image is unsure.",
  expired: "These values are gone since the server restarted. Run the workflow again.",
  loading: "Loading…",
  stage:
    "Values under the pointer are shown below. Press, or hold H: the image alone. Left and right: " +
    "other images. Shift and arrows: move the probe. F: full size.",
  stageLarge:
    "Wheel, + and −: zoom. Drag: move. 0 or double click: fit. Hold H: the image alone. Left and " +
    "right: other images.",
  picture: "Image and uncertainty",
  alone: "Hold to see the image alone (H)",
  expand: "Full size (F)",
  close: "Close (Esc)",
  fit: "Fit (0)",
  image: "image {image} of {count}",
  pixel: "pixel {x}, {y}",
  wholeImage: "scores of the image",
  signal: "signal",
  value: "value",
  percentile: "percentile",
  undecided: "Undecided",
  undecidedHelp: "How far the prediction at this step was from the result.",
  threshold: "Threshold of the mask",
  thresholdHelp: "Drag, or use the arrow keys: what lies to the right is masked.",
  masked: "{share} % masked",
  opacity: "Opacity",
  step: "Step",
  final: "final",
  stepOf: "{step} of {count}",
  sure: "sure",
  unsure: "unsure",
  "latent std": "latent std",
  "latent variance": "latent variance",
  "latent error": "latent error",
  "latent distance": "latent distance",
  "pixel std": "pixel std",
};

const ZH = {
  artifact: "瑕疵",
  trajectory: "轨迹",
  contrast: "对比",
  posterior: "后验",
  artifactHelp: "可能画坏的地方：本次运行中最好的检测信号，即{signal}。",
  trajectoryHelp: "采样过程中每个像素保持未定的时间。",
  contrastHelp: "图像并不比任意其他图像更符合提示词的地方。",
  posteriorHelp: "若模型权重换成其他合理的取值，每个像素会移动多远。",
  together: "对比与轨迹的结合",
  notComputed: "本次运行未计算。",
  empty: "运行工作流，查看图像在哪里不确定。",
  expired: "服务器重启后这些数值已不存在，请重新运行工作流。",
  loading: "加载中…",
  stage: "指针处的数值显示在下方。按住鼠标或 H 键：只看图像。左右键：切换图像。Shift+方向键：移动探针。F：全尺寸。",
  stageLarge: "滚轮、+、−：缩放。拖动：移动。0 或双击：适应窗口。按住 H：只看图像。左右键：切换图像。",
  picture: "图像与不确定性",
  alone: "按住只看图像 (H)",
  expand: "全尺寸 (F)",
  close: "关闭 (Esc)",
  fit: "适应窗口 (0)",
  image: "第 {image} 张，共 {count} 张",
  pixel: "像素 {x}, {y}",
  wholeImage: "图像评分",
  signal: "信号",
  value: "数值",
  percentile: "百分位",
  undecided: "未定",
  undecidedHelp: "这一步的预测与最终结果的距离。",
  threshold: "蒙版阈值",
  thresholdHelp: "拖动或使用方向键：右侧的部分被蒙版覆盖。",
  masked: "蒙版占 {share} %",
  opacity: "不透明度",
  step: "步",
  final: "最终",
  stepOf: "第 {step} 步，共 {count} 步",
  sure: "确定",
  unsure: "不确定",
  "latent std": "潜空间标准差",
  "latent variance": "潜空间方差",
  "latent error": "潜空间误差",
  "latent distance": "潜空间距离",
  "pixel std": "像素标准差",
};

const JA = {
  artifact: "破綻",
  trajectory: "軌跡",
  contrast: "コントラスト",
  posterior: "事後分布",
  artifactHelp: "破綻していそうな場所。この実行で最も優れた検出信号（{signal}）です。",
  trajectoryHelp: "サンプリング中、各ピクセルがどれだけ長く定まらなかったか。",
  contrastHelp: "画像がプロンプトを他の画像以上には表していない場所。",
  posteriorHelp: "モデルの重みが別のもっともらしい値だったら、各ピクセルがどれだけ動くか。",
  together: "コントラストと軌跡の組み合わせ",
  notComputed: "この実行では計算されていません。",
  empty: "ワークフローを実行すると、画像の不確かな場所が表示されます。",
  expired: "サーバーの再起動により値が失われました。ワークフローをもう一度実行してください。",
  loading: "読み込み中…",
  stage:
    "ポインタ位置の値を下に表示します。押している間または H キー：画像のみ。左右キー：他の画像。" +
    "Shift＋矢印：プローブを移動。F：全画面。",
  stageLarge:
    "ホイール、+、−：拡大縮小。ドラッグ：移動。0 またはダブルクリック：全体表示。H を押している間：" +
    "画像のみ。左右キー：他の画像。",
  picture: "画像と不確かさ",
  alone: "押している間、画像のみ表示 (H)",
  expand: "全画面 (F)",
  close: "閉じる (Esc)",
  fit: "全体表示 (0)",
  image: "画像 {image} / {count}",
  pixel: "ピクセル {x}, {y}",
  wholeImage: "画像のスコア",
  signal: "信号",
  value: "値",
  percentile: "パーセンタイル",
  undecided: "未決定",
  undecidedHelp: "このステップの予測が最終結果からどれだけ離れていたか。",
  threshold: "マスクのしきい値",
  thresholdHelp: "ドラッグまたは矢印キー：右側がマスクになります。",
  masked: "{share} % をマスク",
  opacity: "不透明度",
  step: "ステップ",
  final: "最終",
  stepOf: "{step} / {count}",
  sure: "確か",
  unsure: "不確か",
  "latent std": "潜在標準偏差",
  "latent variance": "潜在分散",
  "latent error": "潜在誤差",
  "latent distance": "潜在距離",
  "pixel std": "ピクセル標準偏差",
};

/** Texts by language and key. */
export const LANGUAGES = { en: EN, zh: ZH, ja: JA };

/**
 * Makes the function that looks up texts in one language and fills in their values.
 * @param {string} [locale] the host's, such as "zh-TW"; unknown languages get English
 * @returns {Translate}
 */
export function translator(locale = "en") {
  const table = LANGUAGES[locale.split("-")[0]] ?? EN;
  return (key, values = {}) =>
    (table[key] ?? EN[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}
