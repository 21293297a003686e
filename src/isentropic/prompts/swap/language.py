"""Whether a text in Latin letters is English: its small words against those of other languages.

Only counting, no model. A text is held to be of another language where that language knows more of its words than
English does; a tie, or no small word at all, leaves it English: of the built-in prompts cut to two words, a fifth have
no word that is English alone (*He moved*). A foreign word that is also spelled like an English one
(Spanish *he*, Danish *her*, German *man*) counts on both sides.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_STARTS = re.compile(r"(?:^|[.!?:¿¡]|\n)[\s\"“«„–—-]*$")

ENGLISH = frozenset(
    """
    a an the this that these those and or but nor so yet if then than when while where who whom whose which what why how
    because although though unless until since before after during about above across against along among around at by
    down for from in into like near of off on onto out over past per through to toward towards under up upon with within
    without as i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our
    ours they them their theirs themselves themself one ones someone somebody something anyone anything everyone everything
    nobody nothing each every either neither both all any some many much more most few less least several other another
    such same own only very too also just even still again already always never often sometimes soon now here there today
    tomorrow yesterday once twice not no yes am is are was were be been being do does did done doing have has had having
    can could will would shall should may might must ought let lets get gets got getting go goes going went gone come comes
    came coming make makes made making take takes took taken taking give gives gave given say says said saying tell tells
    told ask asks asked think thinks thought know knows knew known see sees saw seen look looks looked want wants wanted
    need needs needed find finds found use uses used work works worked working call calls called try tries tried feel felt
    keep kept leave left begin began put mean means seem seems seemed become became show showed run ran move live lived
    believe hold bring brought write wrote sit sat stand stood lose lost pay paid meet met read walk walks walked talk
    talked buy buys bought sell sells sold eat eats ate play plays played turn turned open opened help helps helped start
    started love loves loved like likes liked wear wears wore wait waited hear heard send sent win won drive drove sing sang
    good better best bad worse worst new old young great little small big long short high low early late last next first
    second third two three four five six seven eight nine ten hundred thousand half whole right wrong able sure well back
    away far together alone enough quite rather really almost perhaps maybe ever else instead however man men woman women
    boy boys girl girls child children people person father mother dad mom mum son daughter brother sister uncle aunt niece
    nephew husband wife king queen prince princess lady sir madam mr mrs ms dr friend friends day days year years time home
    house school room door hand head eye eyes life world way name job money week hour night morning thing things part place
    ain't don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't i'm
    you're he's she's it's we're they're that's there's what's who's let's i'll you'll he'll she'll we'll they'll i'd you'd
    he'd she'd we'd they'd i've you've we've they've
    del die hat war bin den art gut kind arm land pan red sin sale dice era hay tan solo van pie real fine chat main pain
    fin sur on car or ha hi ho im yo but due male sole fare tale barn gift end fast god hen men mine note mal son has come
    bare dig nun born ten list hell mode rot tag wage angst boot brand gas rat ring sand wand warm wind wolf
    """.split()
)

_LISTS = {
    "Spanish": """
        a al algo algunos ante antes aquella aquel así aunque bajo bien cada casa casi como con contra cuando cual cuya cuyo de del
        desde donde dos durante e el él ella ellas ellos en entre era eran eres es esa ese eso esta está están estaba este estoy
        esto fue fueron gran ha había han has hasta hay he hemos hace hacia hombre hoy la las le les lo los más mas me mi mientras mis
        mucho muchos muy mujer nada ni no nos nosotros nuestra nuestro o os otra otro para pero poco por porque que qué quien
        quién se sea según ser será si sí sido siempre sin sobre solo son soy su sus también tan tanto te tengo tiene tienen toda
        todo todos tras tu tú un una uno unos usted ustedes va vez y ya yo dice dijo hermana hermano madre padre hija hijo trabaja
        """,
    "Catalan": """
        a al als amb això aquest aquesta aquell com d'una de del dels des dona el ell ella ells els em en entre era és està
        estan ets fa fins ha han has havia he hem hi home i jo l'he la les li llibre lo mare meu meva molt més mes mentre no nos
        nosaltres o on pare per però perquè quan què que qui s'ha sense ser seu seva si són sóc sobre sota també té tot tots tu
        un una unes uns va van vaig veu vist germà germana fill filla treballa
        """,
    "Portuguese": """
        a à ao aos as às com como da das de dela dele deles depois do dos e é ela elas ele eles em entre era essa esse esta está
        estava este eu foi foram há isso isto já lhe mais mas me mesmo meu meus minha muito muito na não nas nem no nos nossa nosso
        num numa o os ou outra para pela pelo por porque qual quando que quem se seja sem ser seu seus sua suas são só sobre também te
        tem tenho ter teu toda todo todos tu um uma umas uns vai você vocês homem mulher mãe pai irmã irmão filha filho trabalha disse
        """,
    "Italian": """
        a abbiamo ad ai al alla alle anche avere aveva c'è che chi ci come con cosa da dal dalla de dei del della delle dello di
        dopo dove due è e ed era erano essere fa fra fu gli ha hai hanno ho i il in io la le lei li lo loro lui ma me mentre mi mia
        mio molto ne nei nel nella noi non nostra nostro o ogni per perché però più poi prima quando quella quello quest questa
        questo qui se sei senza si sia siamo sono sta stato su sua sue sui sul sulla suo suoi te ti tra tu tutti tutto un un' una
        uno va voi uomo donna madre padre sorella fratello figlia figlio lavora detto
        """,
    "French": """
        a à afin ai ainsi alors après as au aussi autre aux avait avant avec avoir c'est ce cela ces cet cette chaque chez comme
        comment contre dans de depuis des deux devant donc dont du elle elles en encore entre es est et étaient était été être eu eux
        fait femme fille fils frère homme il ils j'ai j'étais je l'a l'homme la là le les leur leurs lui ma mais me même mère
        mes moi moins mon n'a n'est ne ni nos notre nous on ont ou où par parce pas pendant père peu peut plus pour pourquoi
        quand que quel quelle qu'elle qu'il qui s'est sa sans se sera ses si soeur sœur son sont sous sur ta te tes toi ton tous tout
        toute très trop tu un une va vers veut vos votre vous y travaille dit
        """,
    "German": """
        aber alle allem als also am an auch auf aus bei bin bis bist da damit dann das dass daß dein dem den denn der des dessen
        dich die dies diese dieser doch dort du durch ein eine einem einen einer eines er es etwas euch für gegen gehen geht gibt
        habe haben hat hatte hatten her hier hin hinter ich ihm ihn ihnen ihr ihre ihren ihrer im immer in ins ist ja jede jeder jetzt
        kann kein keine kommt können machen man mehr mein meine mich mir mit muss nach nicht nichts noch nun nur ob oder ohne
        schon sehr sei sein seine seinem seinen seiner seit sich sie sind so sondern über um und uns unser unter vom von vor war waren
        warum was weil wenn wer werden wie wieder will wir wird wo wurde zu zum zur zwei frau mann mutter vater schwester bruder
        tochter sohn arbeitet sagte sagt sieht spricht steht liegt findet nimmt weiß
        """,
    "Dutch": """
        aan al alle als altijd ben bij daar dan dat de den der deze die dit door dus een eens en er even ge geen geweest haar had
        heb hebben heeft hem het hier hij hoe hun iemand iets ik in is ja je jij jou jouw kan kon kunnen maar man me meer men met
        mij mijn moet na naar niet niets nog nu of om omdat onder ons onze ook op over reeds te tegen toch toen tot u uit uw van
        veel voor want waren was wat we wel werd wie wij worden wordt zal ze zei zelf zich zij zijn zo zonder zou vrouw moeder
        vader zus broer dochter zoon werkt
        """,
    "Danish or Norwegian": """
        af alle at av bare begge blev ble bli blir da de deg dem den denne der deres det dette dig din disse dog du eg efter eller
        en end enn er et etter få får for fordi fra før gjør god ham han hans har havde hadde have hende hendes henne hennes her
        hos hun hva hvad hvem hver hvis hvor hvordan i ikke ikkje ind inn ingen jeg jeres kan kom kommer kunne man mange med meg
        meget mellem men mig min mine mit mitt mod må nå når ned noen noget nogle nok nu og også om op opp oss over på sagde sa
        selv sig seg sin sine sit sitt skal skulle som så til ud under ut uten uden var ved vi vil være været kvinde kvinne mand
        mann mor far søster bror datter søn sønn bor arbejder jobber
        """,
    "Swedish": """
        alla allt att av bara bli blev där då de dem den denna deras det detta dig din du där efter ej eller en er ett från för
        göra han hans har hade hela henne hennes här hon honom hos hur i icke ingen inte jag ja kan kunde man med mellan men mer mig
        min mina mitt mot mycket må måste ni nog nu någon något när och också om oss på så sedan sig sin sina sitt ska skulle som
        till under upp ut utan vad var vara varit vem vi vid vilken än är åt över kvinna mamma pappa syster bror dotter
        arbetar sade
        """,
    "Icelandic": """
        að af á en er ég fyrir hafa hana hann hans hefur hennar hún hvað í ekki með mig minn og okkur sem sér sig sinn svo til um
        var vera við þá það þau þeir þess þetta þú því
        """,
    "Afrikaans": """
        aan dat die dit een ek en ens haar het hierdie hom hulle hy in is jou jy kan maar met moet my nie nog om ook ons op sal se sy
        te toe van vir vrou was wat word
        """,
    "Polish": """
        ale bardzo bez być była było był byli ci co czy dla do gdy go i ich ja jak jego jej jest jestem już kiedy która który
        ma mam mi mnie może na nad nie niego niej o od on ona oni ono po pod przez się są ta tak tam tego ten to tu ty w we wszystko z
        za ze że żeby pracuje
        """,
    "Czech or Slovak": """
        a ako ale aby až bol bola byl byla bylo být co do i já je jeho jej její jen jsem jsou k kde kdy když která který ma má mi na
        nebo není o od on ona po pod pro pri při s sa se si som sú tak ten to už v ve vo z za ze že žena muž pracuje
        """,
    "Croatian or Slovenian": """
        a ali bila bilo bio da do ga i iz ima je jer još kad kada kako ko koja koji kot li mi na nakon ne nije od on ona oni po pri s sa
        sam se si smo so su što ta te to u uz v za žena radi
        """,
    "Romanian": """
        a acest această ai ale am ar au ca că care ce cea cel cu cum da de din după ea ei el ele era este eu fi foarte fost i iar în
        între la lui mai meu mi nu o pe pentru prin sa să sau se si și sunt un unei unui va femeie bărbat mama lucrează
        """,
    "Turkish": """
        ama ben bir biz bu çok çünkü da daha de değil diye en gibi hem her için ile ise kadın kadar ki mi mu ne o olan olarak oldu
        onu onun sen siz sonra şey şu ve veya ya yok
        """,
    "Indonesian or Malay": """
        ada adalah akan aku anak anda atau bagi bahwa bukan dalam dan dari dengan di dia guru ia ini itu juga kami kamu karena
        ke kepada kita lebih mereka oleh pada perempuan saya sebagai sebuah seorang sudah telah tidak untuk wanita yang
        """,
    "Finnish": """
        ei en että hän hänen heidän he hän ja jos joka jotka kanssa koska kuin kun me meidän minä minun mutta myös niin nyt ole
        oli olla on ovat sinä se sen siellä tai tämä te vain äiti isä nainen mies
        """,
    "Hungarian": """
        a az egy és is hogy nem van volt lesz de meg már csak ki mi ez ő én te mint vagy ha amikor után nő férfi dolgozik
        """,
    "Tagalog": """
        ako ang ano at ay babae dahil din hindi ito ka kanya kanyang kay ko kung lalaki mga mo na nang ng ni nila niya pa para sa si sila
        siya
        """,
    "Swahili": """
        alikuwa ambaye baada cha hii hiyo huyu katika kama kazi kila kuwa kwa la lakini mama mtu mwanamke mwanamume na ni si sana wa
        wake wakati ya yake yeye za
        """,
    "Vietnamese": """
        anh ấy bà bạn các cho chị của cô có được đã đang đó em hai hôm không là làm một này người nhà những ông rất tôi trong và vào
        với
        """,
}
LANGUAGES = {name: frozenset(words.split()) for name, words in _LISTS.items()}


def foreign_language(text: str) -> str | None:
    """The language that knows more words of the text than English does; None where none does.

    Example:
        >>> foreign_language("He visto a la doctora"), foreign_language("Her er en bager")
        ('Spanish', 'Danish or Norwegian')
        >>> foreign_language("He said that her duck ran")
    """
    matches = list(_WORD.finditer(text))
    words = [match[0].lower().replace("’", "'") for match in matches]
    capital = [match[0][0].isupper() for match in matches]
    counted = []
    for k, match in enumerate(matches):
        # A capital within a sentence is a name's or a title's (El Paso), and so is what stands between two (van Gogh).
        in_name = 0 < k < len(matches) - 1 and capital[k - 1] and capital[k + 1]
        if text.isupper() or _STARTS.search(text[: match.start()]) or not (capital[k] or in_name):
            counted.append(words[k])
    english = sum(word in ENGLISH for word in words)
    scores = {}
    for name, known in LANGUAGES.items():
        there = [word for word in counted if word in known]
        scores[name] = len(there) * any(len(word) > 1 for word in there)
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > english else None
