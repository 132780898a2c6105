# ruff: noqa: RUF001
"""Lines of text in many languages and scripts, plain and typographic, written for these tests."""

import unicodedata

PLAIN = {
    "en": ["The old man sees the ship, and he smiles.", "Don't wait for us: we'll be late."],
    "fr": ["L'homme qui dort n'a pas vu la mer.", "C'est l'amitié, qu'il dit, et rien d'autre."],
    "de": ["Die Straße führt über die Brücke ins Dorf.", "Er fragte: Wer geht so früh hinaus?"],
    "yo": ["Ọ̀rọ̀ rẹ̀ dára púpọ̀ fún wa lónìí.", "Ẹ káàárọ̀, ṣé ẹ sùn dáadáa ní alẹ́?"],
    "vi": ["Tôi đã đọc quyển sách này hôm qua.", "Trời đẹp quá, chúng ta đi chơi nhé!"],
    "el": ["Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ᾠδὴ ἠκούσθη.", "Το πλοίο φεύγει αύριο το πρωί."],
    "ru": ["Стари́к ви́дит кора́бль и молчи́т.", "Мы идём домой, потому что уже поздно."],
    "am": ["ሽማግሌው መርከቡን ከሩቅ ያያል።", "ዛሬ አየሩ በጣም ጥሩ ነው፣ እንውጣ።"],
    "ar": ["مُحَمَّدٌ يَقْرَأُ كِتَابًا جَدِيدًا.", "هل ترى السفينة، يا صديقي؟"],
    "fa": ["او می‌خواهد به خانه‌ی ما برود.", "کتاب‌ها روی میز است، نه روی صندلی."],
    "ur": ["بوڑھا آدمی جہاز کو دیکھتا ہے۔", "ہم کل صبح گھر جائیں گے، ان شاء اللہ۔"],
    "he": ["הַזָּקֵן רוֹאֶה אֶת הָאֳנִיָּה.", "צה״ל וח׳ פתחו בית־ספר חדש."],
    "hi": ["हिन्दी भाषा सरल है और सुन्दर भी।", "बूढ़ा आदमी जहाज़ को देखता है।"],
    "bn": ["বৃদ্ধ লোকটি জাহাজ দেখছে।", "আমরা আগামীকাল বাড়ি যাব, তুমিও এসো।"],
    "ta": ["முதியவர் கப்பலைப் பார்க்கிறார்.", "நாங்கள் நாளை வீட்டுக்குச் செல்வோம்."],
    "ko": ["노인은 배를 보고 웃는다.", "우리는 내일 아침에 집으로 갑니다."],
    "th": ["ชายชรามองเห็นเรือ และเขายิ้ม", "พรุ่งนี้เราจะกลับบ้านกันแต่เช้า"],
    "lo": ["ຜູ້ເຖົ້າເຫັນເຮືອ ແລ້ວລາວກໍ່ຍິ້ມ", "ມື້ອື່ນພວກເຮົາຈະກັບບ້ານແຕ່ເຊົ້າ"],
    "km": ["បុរសចំណាស់មើលឃើញកប៉ាល់ ហើយញញឹម។", "ស្អែកយើងនឹងទៅផ្ទះពីព្រលឹម។"],
    "my": ["အဘိုးအိုသည် သင်္ဘောကို မြင်သည်။", "မနက်ဖြန် ကျွန်တော်တို့ အိမ်ပြန်မည်။"],
    "bo": ["རྒན་པོ་དེས་གྲུ་མཐོང་ནས་འཛུམ་བསྟན།", "སང་ཉིན་ང་ཚོ་ནང་ལ་ལོག་གི་ཡིན།"],
    "zh": ["老人看见了那条船，笑了。", "明天早上我们回家，好吗？"],
    "ja": ["老人は船を見て、笑った。", "あしたの朝、わたしたちは家に帰ります。"],
}
"""Two lines of each language: code -> lines."""

TYPOGRAPHIC = {
    "en": [
        "He said “don’t” — it’s ‘fine’… — on page 10½ (m² ≈ 5 ft²).",
        "<2de> see http://a.b/c?d=e#f",
    ],
    "fr": ["« L’amitié », qu’il dit… n’est-ce pas ?", "Aujourd’hui, 3 % : « l’œuf » !"],
    "de": [
        "„Guten Tag“, sagte er – und ging: ‚so‘.",
        "Donau\u00addampf\u2011Schiff, 10⁵ €/m³, ™ ℃",
    ],
    "yo": [unicodedata.normalize("NFD", line) for line in PLAIN["yo"]],
    "vi": [unicodedata.normalize("NFD", line) for line in PLAIN["vi"]],
    "el": [unicodedata.normalize("NFD", line) for line in PLAIN["el"]],
    "ru": ["«Замо́к» — э́то не „за́мок“…", "№ 5, §\u00a03: «е\u0308лка»."],
    "ar": ["«مُحَمَّدٌ»، \u200fABC\u200f، ٣٫٥٪؟", "السـلام عليكم…"],
    "fa": ["«می‌خواهم»؛ ۱۲٫۵ کتاب‌ها؟", "نمی\u200cدانم!"],
    "he": ["„שָׁלוֹם”, אמר ד״ר כהן — ז׳קט.", "בית־ספר (צה״ל)…"],
    "hi": ["“हिन्दी” — क\u094d\u200dष और क\u094d\u200cष।", "“ज़\u200b रा…”"],
    "zh": ["“你好”，他说：《红楼梦》……ＡＢＣ１２３！", "（ＧＤＰ）——１０％，ﾊﾟ～"],
    "ja": ["「はい」と、彼は言った……か\u3099ＡＢＣ！", "ﾊﾝｶｸ・カタカナー〜１２３％"],
    "ko": [unicodedata.normalize("NFD", line) for line in PLAIN["ko"]],
    "km": ["បុរស\u200bចំណាស់\u200bមើល\u200bឃើញ។", "«ស្អែក»៖ ១២៣៛"],
    "emoji": [
        "👍🏽 ok 👩‍👩‍👧 ❤️ 🇫🇷 1️⃣ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f!",
        "▁ ▅ ‿ ⁇ ␣ ￭",
    ],
}
"""The same as people set it: quotation marks, ligatures, joiners, fractions, NFD, reserved ones."""
