"""Which links of a page show no text: files, categories, and the page in other languages.

The names of namespaces are those of MediaWiki's messages; the options of images are described in
https://www.mediawiki.org/wiki/Help:Images.
"""

import re
from collections.abc import Collection

# The names and aliases of the namespaces of files and categories in the large Wikipedias. A dump
# says its own names, but no aliases.
FILE_NAMESPACES = frozenset({
  'afbeelding', 'archivo', 'archivu', 'arquivo', 'attēls', 'attēlu', 'beeld', 'berkas', 'bestand',
  'bestân', 'bild', 'bilde', 'billede', 'catagóir', 'categori', 'categoria', 'categoría',
  'categorie', 'category', 'catégorie', 'datei', 'datoteka', 'delwedd', 'dosiero', 'dosya', 'fail',
  'faili', 'fails', 'fasciculus', 'fayl', 'fichier', 'fichièr', 'ficheiro', 'ficheru', 'figura',
  'fil', 'file', 'fitxategi', 'fitxer', 'fișier', 'fişier', 'fájl', 'flokkur', 'gambar',
  'grafika', 'hình', 'image', 'imagem', 'imagen', 'imagine', 'imago', 'imatge', 'imaxe', 'imaxen',
  'imej', 'immagine', 'irudi', 'jamii', 'kategori', 'kategoria', 'kategorie', 'kategorija',
  'kategoriya', 'kategorio', 'kategooria', 'kategória', 'kateqoriya', 'kép', 'kuva', 'larawan',
  'lêer', 'luokka', 'mynd', 'obrazek', 'obrázek', 'obrázok', 'ofbyld', 'payl', 'picha', 'pilt',
  'plik', 'resim', 'restr', 'rummad', 'skeda', 'skeudenn', 'slika', 'soubor', 'súbor', 'şəkil',
  'talaksan', 'tasvir', 'thể loại', 'tiedosto', 'turkum', 'tập tin', 'vaizdas', 'íomhá',
  'выява', 'датотека', 'зображення', 'изображение', 'картинка', 'катэгорыя', 'категорија',
  'категория', 'категорія', 'податотека', 'рәсем', 'санат', 'слика', 'сурет', 'төркем', 'файл',
  'αρχείο', 'εικόνα', 'κατηγορία', 'կատեգորիա', 'պատկեր', 'კატეგორია', 'სურათი', 'ფაილი',
  'صورة', 'ملف', 'تصنيف', 'پرونده', 'تصویر', 'رده', 'زمرہ', 'קובץ', 'קטגוריה', 'תמונה',
  'चित्र', 'वर्ग', 'श्रेणी', 'ছবি', 'চিত্র', 'বিষয়শ্রেণী', 'படிமம்', 'பகுப்பு', 'దస్త్రం', 'బొమ్మ',
  'ఫైలు', 'వర్గం', 'ചിത്രം', 'പ്രമാണം', 'വർഗ്ഗം', 'ไฟล์', 'ภาพ', 'หมวดหมู่', 'カテゴリ', 'ファイル', '画像',
  '分类', '分類', '图像', '图片', '圖像', '圖片', '影像', '文件', '档案', '檔案', '그림',
  '분류', '파일',
})
# Links to these show their text, whatever file they play.
_MEDIA_NAMESPACES = frozenset({
  'media', 'medio', 'medium', 'médium', 'média', 'mídia', 'multimédia', 'медиа', 'медіа', 'μέσο',
})
# Wikipedias that pages link to as translations of themselves.
_LANGUAGES = frozenset('''
  ab ace af ak als am an ang ar arc arz as ast av ay az ba bar be be-tarask be-x-old bg bh bi bm bn
  bo bpy br bs bug bxr ca cbk-zam cdo ce ceb ch chr chy ckb co cr crh cs csb cu cv cy da de diq dsb
  dv dz ee el eml en eo es et eu ext fa ff fi fiu-vro fj fo fr frp frr fur fy ga gag gan gd gl glk
  gn got gu gv ha hak haw he hi hif hr hsb ht hu hy ia id ie ig ik ilo io is it iu ja jbo jv ka kaa
  kab kbd kg ki kk kl km kn ko koi krc ks ksh ku kv kw ky la lad lb lbe lez lg li lij lmo ln lo lt
  ltg lv map-bms mdf mg mhr mi min mk ml mn mr mrj ms mt mwl my myv mzn na nah nap nds nds-nl ne new
  nl nn no nov nrm nso nv ny oc om or os pa pag pam pap pcd pdc pfl pi pih pl pms pnb pnt ps pt qu
  rm rmy rn ro roa-rup roa-tara ru rue rw sa sah sc scn sco sd se sg sh si simple sk sl sm sn so sq
  sr srn ss st stq su sv sw szl ta te tet tg th ti tk tl tn to tpi tr ts tt tum tw ty udm ug uk ur
  uz ve vec vep vi vls vo wa war wo wuu xal xh xmf yi yo za zea zh zh-classical zh-min-nan zh-yue zu
  '''.split())

_SIZE = re.compile(r'(?:\d+(?:x\d*)?|x\d+)\s*(?:px|пкс|п|б|ピクセル|像素)')
# A link with one of these alone is an image; other options may be the text of a link.
_FRAMES = frozenset({'frameless', 'thumb', 'thumbnail'})
_OPTIONS = _FRAMES | {
  'enframed', 'frame', 'framed', 'bélyegkép', 'hochkant',
  'kehys', 'mały', 'mini', 'miniatur', 'miniatura', 'miniatuur', 'miniatyr', 'miniature',
  'miniaturadeimagen', 'náhled', 'näoishoid', 'nhỏ', 'pienoiskuva', 'rám', 'ramka', 'sličica',
  'umanjeno', 'vignette', 'мини', 'миниатюра', 'мініатюра', 'мини-изображение', 'минијатура',
  'μικρογραφία', 'تصغير', 'بندانگشتی', 'ממוזער', 'サムネイル', '缩略图', '縮圖', '섬네일',
  'border', 'center', 'centre', 'left', 'none', 'right', 'upright', 'baseline', 'bottom', 'middle',
  'sub', 'super', 'text-bottom', 'text-top', 'top', 'centro', 'centré', 'destra', 'derecha',
  'direita', 'droite', 'esquerda', 'gauche', 'izquierda', 'keskellä', 'lewo', 'links', 'oikea',
  'prawo', 'rechts', 'sinistra', 'vasen', 'vpravo', 'vlevo', 'zentriert', 'слева', 'справа',
}
_NAMED_OPTION = re.compile(r'(?:alt|class|lang|link|page|thumb|thumbnail|upright)\s*=')
_PICTURE = re.compile(r'\.(?:gif|jpe?g|png|svg|tiff?|webp|xcf)\s*$', re.IGNORECASE)


def shows_no_text(title: str, parts: list[str], file_namespaces: Collection[str]) -> bool:
  """Tells whether a link is a file, a category, or the same page in another language.

  Args:
    title: what the link leads to.
    parts: what stands behind it, split at `|`.
    file_namespaces: the names, in lower case, of the namespaces of files and categories.
  """
  prefix, colon, name = title.partition(':')
  namespace = ' '.join(prefix.replace('_', ' ').split())
  if not colon or not namespace or namespace.lower() in _MEDIA_NAMESPACES:
    return False
  return (namespace.lower() in file_namespaces or namespace in _LANGUAGES
          or _PICTURE.search(name) is not None
          or _has_image_options(parts))


def _has_image_options(parts: list[str]) -> bool:
  """Tells whether the parts are those of an image: a frame or a size, or any option of several."""
  words = [part.strip().lower() for part in parts]
  if any(word in _FRAMES or _SIZE.fullmatch(word) for word in words):
    return True
  return len(words) > 1 and any(word in _OPTIONS or _NAMED_OPTION.match(word) for word in words)
