"""Words the swap engine knows, as data: noun pairs, titles, names, and the word classes its rules ask about.

Written for this project from general knowledge. Names stand in rough order of how common they are in English
texts, so that names of the same rank make a pair; spellings are lower case unless case is the point.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> dict[str, str]:
    """Read "male/female ..." into a map from male to female."""
    return dict(item.split("/") for item in text.split())


# Both directions, singular and plural written out: no rule guesses a plural.
NOUNS = _pairs("""
    man/woman men/women boy/girl boys/girls guy/gal gentleman/lady gentlemen/ladies lad/lass lads/lasses
    male/female males/females husband/wife husbands/wives boyfriend/girlfriend boyfriends/girlfriends
    fiancé/fiancée fiancés/fiancées fiance/fiancee fiances/fiancees groom/bride grooms/brides
    groomsman/bridesmaid groomsmen/bridesmaids widower/widow widowers/widows
    bachelor/bachelorette bachelors/bachelorettes
    father/mother fathers/mothers dad/mom dads/moms daddy/mommy daddies/mommies papa/mama papas/mamas
    son/daughter sons/daughters brother/sister brothers/sisters bro/sis uncle/aunt uncles/aunts
    nephew/niece nephews/nieces grandfather/grandmother grandfathers/grandmothers grandpa/grandma
    grandpas/grandmas grandson/granddaughter grandsons/granddaughters
    stepfather/stepmother stepfathers/stepmothers stepdad/stepmom stepdads/stepmoms stepson/stepdaughter
    stepsons/stepdaughters stepbrother/stepsister stepbrothers/stepsisters godfather/godmother
    godfathers/godmothers godson/goddaughter godsons/goddaughters
    king/queen kings/queens prince/princess princes/princesses duke/duchess dukes/duchesses
    emperor/empress emperors/empresses baron/baroness barons/baronesses viscount/viscountess
    tsar/tsarina czar/czarina maharaja/maharani
    actor/actress actors/actresses waiter/waitress waiters/waitresses landlord/landlady
    landlords/landladies wizard/witch wizards/witches sorcerer/sorceress sorcerers/sorceresses
    monk/nun monks/nuns abbot/abbess abbots/abbesses masseur/masseuse masseurs/masseuses
    headmaster/headmistress headmasters/headmistresses schoolmaster/schoolmistress
    patriarch/matriarch patriarchs/matriarchs merman/mermaid mermen/mermaids househusband/housewife
    househusbands/housewives cowboy/cowgirl cowboys/cowgirls schoolboy/schoolgirl schoolboys/schoolgirls
    paperboy/papergirl ballboy/ballgirl ballboys/ballgirls choirboy/choirgirl choirboys/choirgirls
    businessman/businesswoman businessmen/businesswomen salesman/saleswoman salesmen/saleswomen
    chairman/chairwoman chairmen/chairwomen spokesman/spokeswoman spokesmen/spokeswomen
    congressman/congresswoman congressmen/congresswomen councilman/councilwoman councilmen/councilwomen
    policeman/policewoman policemen/policewomen fireman/firewoman firemen/firewomen
    mailman/mailwoman mailmen/mailwomen postman/postwoman postmen/postwomen fisherman/fisherwoman
    fishermen/fisherwomen craftsman/craftswoman craftsmen/craftswomen cameraman/camerawoman
    cameramen/camerawomen anchorman/anchorwoman anchormen/anchorwomen sportsman/sportswoman
    sportsmen/sportswomen serviceman/servicewoman servicemen/servicewomen foreman/forewoman
    foremen/forewomen handyman/handywoman handymen/handywomen repairman/repairwoman repairmen/repairwomen
    doorman/doorwoman doormen/doorwomen stuntman/stuntwoman stuntmen/stuntwomen horseman/horsewoman
    horsemen/horsewomen nobleman/noblewoman noblemen/noblewomen clergyman/clergywoman clergymen/clergywomen
    alderman/alderwoman aldermen/alderwomen assemblyman/assemblywoman assemblymen/assemblywomen
    caveman/cavewoman cavemen/cavewomen garbageman/garbagewoman weatherman/weatherwoman
    milkman/milkwoman milkmen/milkwomen ombudsman/ombudswoman
    englishman/englishwoman englishmen/englishwomen frenchman/frenchwoman frenchmen/frenchwomen
    irishman/irishwoman irishmen/irishwomen dutchman/dutchwoman dutchmen/dutchwomen
    scotsman/scotswoman scotsmen/scotswomen welshman/welshwoman welshmen/welshwomen
    manly/womanly boyish/girlish masculine/feminine masculinity/femininity manhood/womanhood
    boyhood/girlhood fatherhood/motherhood brotherhood/sisterhood fatherly/motherly brotherly/sisterly
    paternal/maternal paternity/maternity fatherless/motherless fraternity/sorority fraternities/sororities
    sir/ma'am mens/womens
""")

# One way only: several words share a twin, or the twin also serves everyone. What was written is remembered.
ONE_WAY_TO_MALE = _pairs("""
    mum/dad mums/dads mummy/daddy momma/papa granny/grandpa grannies/grandpas grandmom/grandpa
    nana/grandpa auntie/uncle aunties/uncles aunty/uncle madam/sir heroine/hero heroines/heroes hostess/host
    hostesses/hosts heiress/heir heiresses/heirs stewardess/steward stewardesses/stewards
    goddess/god goddesses/gods priestess/priest priestesses/priests seamstress/tailor seamstresses/tailors
    shepherdess/shepherd shepherdesses/shepherds comedienne/comedian comediennes/comedians usherette/usher
    countess/count countesses/counts huntress/hunter enchantress/enchanter authoress/author poetess/poet
    gals/guys
""")
ONE_WAY_TO_FEMALE = _pairs("""
    granddad/grandma granddads/grandmas grandad/grandma grandads/grandmas gramps/grandma
    bridegroom/bride bridegrooms/brides
""")

# Before a name. "Mr." becomes "Ms."; "Mrs." and "Miss" become "Mr." and are remembered.
TITLES = {"Mr": "Ms", "Sir": "Dame", "Lord": "Lady", "Monsieur": "Madame"}
ONE_WAY_TITLES = {"Mrs": "Mr", "Miss": "Mr", "Mme": "Monsieur"}
# Nouns that stand before a name with a capital, as a title does.
TITLE_NOUNS = _words("""
    uncle aunt auntie aunty grandpa grandma granny grandfather grandmother granddad king queen prince princess
    duke duchess emperor empress baron baroness brother sister father mother papa mama dad mom mum cousin
""")
# Nouns a family uses as a name, with a capital.

# The body does not swap: a text with one of these words (or beginnings, with *) is flagged.
BIOLOGY = """
    pregnan* breastfe* breastfeeding breastfed breast-fe* menstru* menopaus* uterus uterine womb ovary ovaries
    ovarian ovulat* vagin* cervix cervical hysterectom* gynecolog* gynaecolog* obstetric* mammogra* miscarr*
    lactat* childbirth postpartum prenatal tampon tampons estrogen testosterone prostate testic* penis sperm
    vasectom* circumcis* foreskin ejaculat* erectile scrotum beard beards bearded moustache* mustache*
    goatee* sideburns placenta c-section endometrio* semen
""".split()
BIOLOGY_PHRASES = (
    r"g[ia]v(?:e|es|ing|en) birth",
    r"in labou?r\b",
    r"pap smear",
    r"expecting (?:a|her|his|their) (?:baby|child)",
    r"breast (?:cancer|milk|pump|feed\w*|exam\w*|implant\w*)",
    r"(?:her|his) breasts?\b",
    r"shav\w+ (?:his|her) face",
)

# Gendered words inside these phrases name a thing, or both sexes at once. They stay as they are.
PHRASES = (
    r"\bs/he\b",
    r"\(s\)he\b",
    r"\b(?:he|she|him|her|his|hers|himself|herself)(?:\s+(?:or|and/or)\s+|\s?/\s?)(?:he|she|him|his|hers|her|himself|herself)\b",
    r"\b(?:mr|mrs|ms)\.? (?:and|&) (?:mr|mrs|ms)\b\.?",
    r"\bladies and gentlemen\b",
    r"\bladies['’] man\b",
    r"\bsirs? (?:or|and|/) madams?\b",
    r"\bsir/madam\b",
    r"\bgentlemen and ladies\b",
    r"\byou guys\b",
    r"\bgingerbread (?:man|men|woman|women|boy|girl)s?\b",
    r"\bsnow (?:man|men)\b",
    r"\bman[- ](?:made|hours?|power|days?)\b",
    r"\bmen at work\b",
    r"\bto a man\b",
    r"\b(?:king|queen)[- ]?(?:sized?|beds?|mattress(?:es)?|crabs?|cakes?|salmon|cobras?|penguins?|bees?)\b",
    r"\bpins?[- ]kings?\b",
    r"\bbachelor'?s?'?(?: of \w+)? degrees?\b",
    r"\bbachelor of \w+\b",
    r"\bmother (?:nature|tongue|ship|earth|board|lode|hens?|ducks?|cats?|dogs?|birds?|bears?)\b",
    r"\bfather (?:christmas|time)\b",
    r"\bsister (?:cit(?:y|ies)|compan(?:y|ies)|ships?|stores?|schools?)\b",
    r"\bboy bands?\b",
    r"\buncle sam\b",
    r"\bdaddy[- ]long[- ]legs\b",
    r"\blady (?:bugs?|fingers?|luck)\b",
    r"\b(?:burger|lion) king\b",
    r"\bdairy queen\b",
    r"\bdrag (?:queen|king)s?\b",
)
# Gendered, but no word for the other gender says the same: flagged.
NO_TWIN = _words("""
    tomboy tomboys mistress maid maids housemaid barmaid milkmaid ballerina ballerinas playboy playboys lesbian lesbians
    governess spinster bachelorhood henchman henchmen gunman gunmen marksman
""")
# King and queen are pieces or cards where one of these words stands in the text.
GAMES = _words("chess pawn pawns rook rooks deck cards ace aces jack jacks checkers")

MALE_NAMES = """
    James John Robert Michael William David Richard Joseph Thomas Charles Christopher Daniel Matthew Anthony
    Mark Donald Steven Paul Andrew Joshua Kenneth Kevin Brian George Edward Ronald Timothy Jason Jeffrey Ryan
    Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Frank
    Alexander Raymond Patrick Jack Dennis Jerry Tyler Aaron Jose Adam Henry Nathan Douglas Zachary Peter Kyle
    Walter Ethan Jeremy Harold Keith Christian Roger Noah Gerald Carl Terrence Sean Austin Arthur Lawrence
    Jesse Dylan Bryan Joe Billy Bruce Albert Willie Gabriel Logan Alan Juan Wayne Roy Ralph Randy Eugene
    Vincent Russell Louis Philip Bobby Johnny Bradley Tom Bob Mike Jim Bill Tim Steve Dave Dan Ben Matt Greg
    Jeff Josh Nick Tony Will Luke Liam Mason Elijah Oliver Lucas Owen Caleb Isaac Max Leo Evan Ian Harry
    Oscar Theodore Hugo Felix Simon Neil Martin Fred Ted Ron Don Ken Phil Jake Zach Rob Rick Ray Doug Carlos
    Luis Miguel Pedro Diego Antonio Francisco Jorge Manuel Ricardo Eduardo Fernando Javier Rafael Sergio
    Roberto Marco Mario Angelo Giovanni Luca Pablo Andres Alejandro Hector Raul Victor Ivan Igor Boris
    Dmitri Vladimir Sergei Nikolai Mohammed Muhammad Ahmed Ali Omar Hassan Ibrahim Yusuf Khalid Tariq Karim
    Raj Rahul Amit Arjun Sanjay Vikram Anil Ravi Rohan Suresh Hiroshi Kenji Takeshi Akira Wei Jamal Darnell
    Tyrone Malik Kwame Kofi Jean Pierre Jacques Hans Klaus Stefan Lars Erik Sven Bjorn Nils Karl
    Fritz Otto Seamus Connor Aidan Declan Finn Brendan Colin Graham Nigel Trevor Geoffrey Clive Derek
    Stuart Malcolm Duncan Angus Craig Barry Darren Howard Stanley Norman Leonard Melvin Clarence Ernest
    Alfred Herbert Frederick Earl Ernie Chester Clyde Floyd Lloyd Gilbert Wallace Vernon Leroy Cecil Homer
    Elmer Edgar Edwin Edmund Hugh Ross Clark Clifford Marvin Nelson Warren Glenn Dale Dean Todd Chad Brad
    Brett Kurt Kirk Shawn Shane Travis Cody Dustin Derrick Corey Marcus Calvin Curtis Alvin Maurice Leon
    Reginald Roland Randall Gordon Rodney Stewart Wesley Xavier Sebastian Julian Adrian Dominic Damien
    Nathaniel Jeremiah Isaiah Levi Eli Ezra Asher Gideon Abel Abraham Moses Aron Solomon Tobias Jonah Joel
    Seth Caden Jayden Aiden Hunter Chase Colton Gavin Landon Carter Wyatt Tanner Trent Grant Garrett Spencer
    Preston Dexter Milo Jasper Silas Theo Toby Zack Andy Danny Jimmy Tommy Timmy Kenny Ronnie Ricky Eddie
    Freddie Teddy Donny Benny Lenny Vinny Mitch Mitchell Gus Hank Ned Pete Rich Ralphie Wilbur Rufus
    Augustus Julius Otis Percy Rupert Cedric Alistair Alec Brent Bryce Byron Clay Clinton Damon Darius
    Darryl Desmond Devin Dwayne Dwight Elliot Emmanuel Enrique Ernesto Gerard Harvey Herman Ira Irving
    Jared Jermaine Jerome Lionel Lorenzo Luther Nolan Orlando Perry Quentin Rex Roderick Salvador Terence
    Tristan Tyson Virgil Wade Willard Zane Jay Lance Ramon Alonzo Alberto Arturo Gustavo Guillermo Emilio
    Ignacio Santiago Mateo Thiago Rodrigo Esteban Felipe Gonzalo Jaime Rashad Demetrius Jabari Deandre Trey
    Arnold Burt Bert Archie Alfie Barney Stan Sid Ollie Nate Gabe Abe Al Artie Chuck Hal Herb Lou Mick Vince
    Jon Joey Robbie Marc Reggie Alfonso Elvis Marty Carson Bart Harrison Rudy Clayton Conner Brady Collin Jayson Monty
    Cyrus Freddy Anton Bret Kelvin Axel Dirk Romeo Cole Louie Erwin Emanuel Jonas Marlon Matteo Morris Rodolfo Rolando
    Ruben Saul Sammy Stephan Thaddeus Tomas Tucker Vaughn Wendell Weston Winston Zachariah Hamish Callum Ewan Gareth
    Rhys Alastair Barnaby Benedict Cornelius Ambrose Everett Ezekiel Griffin Grayson Josiah Kaleb Kieran Leland Lyle
    Merle Myron Norbert Orville Quincy Rocco Roscoe Royce Sheldon Sherman Sylvester Ulysses Vance Wilbert
""".split()
FEMALE_NAMES = """
    Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Sandra
    Margaret Ashley Kimberly Emily Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Sharon Laura
    Cynthia Dorothy Amy Kathleen Angela Shirley Emma Brenda Pamela Nicole Anna Samantha Katherine Christine
    Debra Rachel Carolyn Janet Maria Olivia Heather Helen Catherine Diane Julie Victoria Joyce Lauren Kelly
    Christina Ruth Joan Virginia Judith Evelyn Hannah Andrea Megan Cheryl Jacqueline Madison Teresa Abigail
    Sophia Martha Sara Gloria Janice Kathryn Ann Isabella Judy Charlotte Julia Grace Amber Alice Jane
    Denise Danielle Marilyn Beverly Diana Brittany Theresa Natalie Sophie Kate Sue Anne Jenny Liz Beth Jen
    Katie Becky Debbie Cindy Lucy Molly Meg Mia Ava Ella Chloe Lily Zoe Ellie Claire Nora Hazel Eva Leah
    Stella Audrey Penelope Clara Sylvia Irene Marie Rose Peggy Nina Tina Gina Rita Jill Pam Kathy Jan Maya
    Carmen Rosa Ana Lucia Elena Sofia Isabel Juana Francisca Camila Gabriela Valentina Mariana Daniela
    Alejandra Bianca Francesca Chiara Giulia Paola Adriana Beatriz Esperanza Guadalupe Natasha Olga Svetlana
    Tatiana Irina Natalia Fatima Aisha Khadija Layla Zainab Amina Mariam Yasmin Noor Leila
    Priya Anjali Neha Kavita Sunita Lakshmi Deepa Meera Pooja Asha Yuki Sakura Keiko Mei Ling Latoya Keisha
    Shanice Ebony Aaliyah Imani Ama Jeanne Amelie Brigitte Greta Ingrid Astrid Freya Sigrid Annika Helga Heidi
    Gretchen Ursula Siobhan Bridget Maeve Fiona Moira Deirdre Nuala Gemma Imogen Philippa Harriet Daphne
    Phoebe Beatrice Edith Agnes Mabel Mildred Gladys Edna Bertha Ethel Florence Doris Thelma Lillian Bernice
    Marjorie Josephine Eleanor Frances Louise Geraldine Lorraine Rosemary Wilma Velma Norma Lois Phyllis
    Eunice Myrtle Minnie Hattie Nellie Elsie Ida Vera Marion Marian Maxine Constance Jeanette Yvonne
    Monica Veronica Vanessa Valerie Erin Crystal Tiffany Courtney Brianna Kayla Jasmine Alexis Alyssa
    Allison Melanie Miranda Candace Kristen Erica Holly Wendy Tammy Tonya Tanya Paula Roberta Connie Annie
    Latasha Regina Renee Roxanne Gail Gwendolyn Paige Giselle Vivian Juliana Adele Celeste Simone
    Naomi Esther Miriam Delilah Dinah Tabitha Abby Hope Faith Joy Charity Tamar Lydia Johanna Joanna
    Shelby Kaylee Hailey Haley Brooklyn Chelsea Savannah Makayla Mackenzie Autumn Summer Sierra Paris Lindsay Lindsey
    Brooke Ivy Willow Violet Ruby Daisy Iris Bella Mandy Jenna Tess Sally Polly Dolly Suzy Bonnie Maggie
    Lizzie Patty Trudy Carla Penny Ginny Mindy Marla Marcy Gracie Nan Nell Pearl Missy Opal Olive Winifred
    Augusta Julianna Octavia Petunia Rosalind Cecilia Alina Alma Blanche Briana Beulah Cara Claudia Dara
    Daria Desiree Delia Dawn Ellen Emmanuelle Enid Ernestine Geneva Hermione Irma Ilene
    Janelle Jasmin Jeannie Leona Loretta Lucille Nadia Odette Pauline Quiana Ramona Rochelle Salma Tara
    Trisha Tamara Vicky Willa Zelda Joanne Lana Marisol Alondra Alicia Aurora Graciela Guillermina Emilia
    Inez Selena Marta Thalia Rocio Estela Felicia Gisela Juanita Rashida Demetria Jada Deja Trina
    Arlene Bettina Bernadette Arabella Ada Stacy Sadie Elaine Eileen Vivienne Sabrina Cassandra Kristina Jolene Marlene Noelle Patrice
    Mercedes Antonia Leticia Yolanda Maribel Rosalie Tabatha Nettie Gabby Addie Ally Angie Charlene Hallie
    Hilda Lulu Millie Vicki Kim
    Amelia Alexandra Caroline Carrie Madeline Kylie Carly Liza Francine Kira Josie Marissa Rosie Sheila Elise Libby
    Whitney Yvette Marcia Mimi Lola Meghan Eliza Suzanne Elsa Shelly Felicity Cathy Celine Jennie Erika Camille Kelsey
    Katy Cassie Nadine Genevieve Lena Laurie Alison Sonja Luna Annabelle Isabelle Marge Ariana Belinda Alexa Janine
    Kristy Kristin Lara Lila Gertrude Samira Marsha Lexi Michaela Sheena Maisie Cathleen Rosalyn Charmaine Antoinette
    Cecile Delores Dolores Henrietta Winnie Tessa Tia Nia Kiara Kendra Ashlyn Jocelyn Aubrey Selma Gillian Bettye Rowena
""".split()
# Borne by both: left as they are, and no evidence.
UNISEX_NAMES = _words("""
    Alex Jordan Taylor Casey Riley Jamie Morgan Avery Quinn Cameron Robin Sam Pat Leslie Lee Jessie Dana Terry
    Tracy Charlie Chris Blake Dakota Drew Frankie Harper Hayden Jackie Jody Kai Kendall Kerry Logan Parker
    Peyton Reese Rowan Sage Skyler Shannon Sidney Sydney Toni Sasha Kelly Kim Ariel Angel Marion Jan Andrea
    Jean Dale Alexis Jules Micah Remy River Rory Tatum Stevie Bobbie Billie Lynn Gale Gerry Rene Shelby Jaime
""")

# Also a common word: a name only where the sentence shows it (see swap.py).
COMMON_WORD_NAMES = _words("""
    Mark Will Bill Jack Frank Rob Chase Hunter Grant Clay Dean Rich Chuck Wade Max Earl Don Ray Rex Christian
    Carter Mason Tanner Lance Al Hal Herb Jay Hank Otto Miles Art Gene Mick Gus Trey Colt Barry Jose Martin
    Grace Hope Faith Joy Rose Amber Crystal Dawn Ivy Violet Ruby Daisy Iris Lily Olive Summer Autumn Pearl Opal
    Penny Holly Heather Carol Sue Brooke Willow Charity Hazel Missy Dolly Ally Patty Nan Olive Mia Harmony Ginny
""")
PLACE_NAMES = _words("""
    Austin Chad Lincoln Jackson Houston Dallas Israel Charlotte Florence Victoria Virginia Geneva Augusta
    Madison Savannah Brooklyn Chelsea Sierra Paris Aurora Orlando Santiago Diego Jose Antonio Francisco Salvador
    Louis Paul Juan Francisca Regina Bethany Asia India Vernon Clinton Preston Nelson Warren Troy Kent Jordan
    Domingo Lorenzo Petersburg Marino Oman Malta Georgia Carolina Adelaide Alberta Alexandria Lydia
""")
# A capital here is no person: calendar, peoples, places, makers, ways to begin. Not complete; see unknown names.
NEUTRAL_CAPITALS = _words("""
    I January February March April May June July August September October November December Jan Feb Mar Apr
    Jun Jul Aug Sep Sept Oct Nov Dec Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mondays Tuesdays
    Wednesdays Thursdays Fridays Saturdays Sundays Mon Tue Wed Thu Fri Sat Sun Christmas Easter Halloween
    Thanksgiving Hanukkah Ramadan Eid Diwali Valentine Valentine's New Year Years Eve Day Labor Memorial Xmas
    English Spanish French German Italian Chinese Japanese Korean Russian Arabic Hindi Portuguese Dutch Greek
    Latin Turkish Polish Swedish Indian Mexican Canadian American Americans European African Asian British Irish
    Scottish Australian Brazilian Cuban Persian Egyptian Thai Vietnamese Hawaiian Jewish Muslim Catholic Buddhist
    America Europe Africa Asia Australia China Japan India Korea Russia Germany Italy Spain Britain England
    Ireland Scotland Wales Canada Mexico Brazil Argentina Chile Peru Cuba Egypt Nigeria Kenya Ghana Ethiopia
    Turkey Greece Poland Sweden Norway Denmark Finland Holland Belgium Austria Switzerland Portugal Vietnam
    Thailand Indonesia Philippines Pakistan Bangladesh Iran Iraq Israel Hawaii Alaska California Texas Florida
    Nevada Arizona Oregon Washington Colorado Utah Idaho Montana Wyoming Kansas Iowa Ohio Michigan Illinois
    Indiana Wisconsin Minnesota Missouri Arkansas Oklahoma Louisiana Alabama Tennessee Kentucky Maine Vermont
    Massachusetts Connecticut Delaware Maryland Pennsylvania Hampshire Jersey York Mexico Dakota Carolina London
    Rome Berlin Madrid Tokyo Beijing Moscow Dublin Boston Chicago Seattle Denver Miami Atlanta Detroit Vegas Las
    Los Angeles San Hollywood Manhattan Toronto Sydney Disney Disneyland Disneyworld Walmart Target Costco Amazon
    Google Apple Microsoft Facebook Netflix YouTube Instagram Twitter Uber Lego Legos Nintendo Xbox PlayStation
    Pokemon Toyota Honda Ford Tesla Nike Adidas Starbucks Coke Pepsi Oreo Oreos Internet Earth Moon Mars Venus
    Olympic Olympics Super Bowl God Bible Math Mathematics Science History Physics Chemistry Biology Art Music
    Dr Prof Professor Doctor President Captain Coach Judge Officer Sergeant Senator Mayor Detective Nurse Chef
    Mr Mrs Ms Miss Sir Lady Lord Dame Madam St Saint Grade Team Class Room Day Week Chapter Part Section Step
    Question Answer Problem Note Hint Ok OK TV PE PM AM USA UK US T-shirt North South East West Northern Southern
    Eastern Western Frisbee Barbie Kindle Monopoly Scrabble Jell-O Velcro Fahrenheit Celsius
    Republican Democrat Farmer Governor Senior Junior Geography Calculus Algebra Geometry Economics
    Chihuahua Corgi Tylenol Snickers Spotify Etsy Jeopardy Scout Scouts Nerf Bluetooth Majesty Highness Honor Honour Excellency
""")
# After a capitalised word these make it a place or an organisation.
PLACE_NOUNS = _words("""
    Street Avenue Road Drive Lane Boulevard Square Park School University College Academy Hospital Church
    Island Islands Lake River Mountain Mount Beach Bay County City Town Village Valley Hill Hills Heights Falls
    Airport Station Bridge Stadium Museum Library Hotel Restaurant Cafe Store Shop Market Mall Bank Company
    Corporation Inc Ltd LLC Co Foundation Institute Center Centre Club League Cup Award Prize Elementary High
    Middle Zoo Farm Farms Ranch Garden Gardens Hall House Court Creek Forest Canyon Desert Ocean Sea World Times
    Journal Magazine Day Project Act Law Theorem Vuitton Russell
""")
# Subjects of these are people: an unknown capitalised word before one is taken for a name.
HUMAN_VERBS = _words("""
    bought buys sold sells went goes wants wanted decided decides earns earned loves loved likes liked works
    worked bakes baked eats ate drinks drank reads read writes wrote walks walked runs ran drives drove says said
    thinks thought knows knew plans planned saves saved spends spent owns owned lives lived plays played
    collects collected makes made gets got gave gives takes took found finds pays paid teaches taught studies
    studied wakes woke sleeps slept swims swam hikes hiked jogs jogged paints painted knits knitted sews sewed
    cooks cooked cleans cleaned planted plants picks picked invites invited visits visited rides rode hires hired
    and has had is was will can needs needed
""")
OPENERS = _words("""
    Everyone Everybody Someone Somebody Nobody Anyone Anybody Who What That This It There He She They We You I
    One Another Each Every Both All Some Many Most Few Several None Nothing Something Everything Anything The A
    An Which Whoever Whatever Half However Finally Additionally Also Meanwhile Later Next First Second Last Assuming Given
    Suppose Initially Currently Originally Altogether Two Three Four Five Six Seven Eight Nine Ten Breakfast Lunch Dinner Today
    Yesterday Tomorrow Tonight Here Now Then Where When How Why Life Love Work School Music Time Money Reading
    These Those People Students Children Parents Friends Mine Yours Ours Theirs Hers His And But Or So If
""")

# --- Word classes of the rules for her, his, him and hers ---------------------------------------------------
CLAUSE_WORDS = _words("""
    a an the this that these those some any my your his their our its no another each much enough something
    anything nothing everything someone anyone her and or but because if when while who whom which whose since where
    what how why whether not as like than unless until though although it he she they we you i him them us me
    himself herself is was are were am be been has have had do does did will would can could should may might
    must shall to such isn aren wasn weren hasn haven hadn doesn didn don won wouldn couldn shouldn
""")
PREPOSITIONS = _words("""
    to for in at on with from of about by into onto over up out off down through after before during without near
    around under upon against across along behind beside besides between beyond inside outside toward towards
    within above below throughout beneath underneath among amid alongside atop via per plus despite except past
""")
# May stand before a noun as well: "her down payment", "her inside pocket".
PREPOSITION_NOUNS = {
    "down": _words("payment payments jacket comforter coat time pillow"),
    "inside": _words("pocket jokes joke lane"),
    "outside": _words("job jobs work interests office"),
    "off": _words("day days season hours"),
    "past": _words("life lives work experience experiences mistakes job jobs self relationships"),
    "under": _words(""),
}
ADVERBS = _words("""
    there here away today yesterday tomorrow tonight again too alone together instead anymore anyway anywhere
    everywhere somewhere forever apart aside forward ahead twice later often sometimes never always ever even
    across either afterwards afterward nearby overnight once then somewhat north south east west upstairs downstairs indoors
    outdoors abroad straight upright aboard soon sooner yet somehow aloud earlier further faster
""")
LY_NOT_ADVERBS = _words("""
    family daily weekly monthly yearly hourly nightly quarterly early lovely friendly elderly only lonely jelly
    belly bully lily supply reply ally assembly butterfly fly ugly silly curly costly holy likely deadly bubbly
    monopoly anomaly ghostly lively motherly fatherly sisterly brotherly womanly manly homely timely heavenly
    biweekly bimonthly tally rally folly melancholy jolly hilly chilly smelly wobbly woolly burly surly
    gangly scholarly orderly cowardly unlikely unfriendly leisurely potbelly gully trolley
""")
# Verbs that take a person and a thing. After a strong one, a number or a bare noun is the thing given.
DATIVES = _words("""
    give gives gave given giving pay pays paid paying owe owes owed owing offer offers offered offering lend lends
    lent lending hand hands handed handing send sends sent sending bring brings brought bringing cost costs
    costing tell tells told telling show shows showed shown showing teach teaches taught teaching wish wishes
    wished wishing grant grants granted charge charges charged charging promise promises promised award awards
    awarded provide provides provided supply supplies supplied ask asks asked
""")
WEAK_DATIVES = _words("""
    buy buys bought buying make makes made making sell sells sold selling bake bakes baked cook cooks cooked get
    gets got getting find finds found leave leaves left leaving take takes took taking read reads throw throws
    threw pass passes passed earn earns earned win wins won save saves saved saving serve serves served feed
    feeds fed write writes wrote build builds built order orders ordered loan loans loaned loaning deal dealt
    refuse refused refusing deny denied denying pour pours poured sing sings sang
""")
# Verbs that take a person and what the person does: "saw her leave".
CLAUSE_VERBS = _words("""
    see sees saw seen seeing watch watches watched watching hear hears heard hearing let lets letting make makes
    made making help helps helped helping have has had having feel felt feels notice noticed notices
    hope hoped bid bade
""")
BARE_VERBS = _words("""
    leave go come feel know think understand eat do be get take give make find keep become begin buy sell pay
    carry choose decide finish fix build bring learn teach read write speak sing swim sit stand lie fall fly
    drive ride throw catch win lose forget remember realize identify settle enjoy move solve see hear say tell
    grow bake cook clean pack unpack prepare complete save earn cry laugh smile scream sleep die live stay
    arrive enter reach depart hesitate approach disappear appear breathe undress secure stray groom emerge
    vanish wander stumble collapse continue proceed pretend wonder speak listen swallow stare sigh lean kneel crawl
    struggle suffer flinch nod blink shiver tremble bleed drown escape survive follow lead accept admit agree allow
    avoid believe compare consider create describe destroy discover discuss explain explore express ignore imagine
    include join obtain perform persuade prove provide realise receive recover refuse replace require select separate
    settle translate understand unload unlock untie unwrap lift push pull grab hold kick kiss hug put set shut throw
    tie wear wipe pick touch squeeze raise rise wrap clutch climb descend obey fill spend add remove collect wash gain propose shop trade relax recover improve succeed fail
""")
VERB_OR_NOUN = _words("""
    walk run play dance work help drink look move cry study dream drop smile fall sleep swim rest wait talk try
    climb stop turn start pass win laugh cook dress paint cut trade gain shop wash process call grin smirk touch kiss hug hold push pull kick grab lead lift climb
""")
COMPLEMENTS = _words("""
    happy sad angry mad tired proud safe crazy sick nervous anxious upset furious jealous uncomfortable comfortable
    famous rich poor late early hungry thirsty cold warm awake asleep alive dead bad wrong right incorrect well
    better worse best free busy calm lonely ready sure curious afraid unhappy healthy strong weak stronger happier
    sadder angrier fired promoted arrested killed responsible guilty innocent enough more less most least alone
    unconscious speechless helpless hopeless jobless homeless fairly badly company first last next second home
    back all half extra double money advice
""")
COMPLEMENT_VERBS = _words("""
    make makes made making call calls called calling leave leaves left leaving keep keeps kept keeping find finds
    found finding prove proves proved proving consider considers considered drive drives drove get gets got
    getting think thought thinks treat treats treated treating set sets turn turned wish wished wishes pay pays
    paid paying send sent sends take takes took taking bring brings brought bringing walk walked walks follow
    followed give gives gave giving know knows knew like liked likes love loved loves beat beats want wanted wants
    text texted texting invite invited hate hated
""")
# No article needed: after a strong verb this may be the thing given or her own.
MASS = _words("""
    room space priority hell heck pause strength pleasure courage confidence proof evidence
    money advice bread help food information water love medicine change permission credit cash candy homework work
    time support attention encouragement feedback goods coffee tea milk juice cake dinner lunch breakfast pizza
    chocolate rice meat fruit ice cream soup gas trouble hell hope joy access power directions paper ink jewelry
    furniture company respect credit comfort education training guidance assistance notice relief praise
""")
PEOPLE = _words("""
    friends parents kids children students sisters brothers sons daughters employees classmates neighbors
    neighbours cousins nieces nephews aunts uncles grandparents grandchildren grandkids siblings coworkers
    colleagues teachers workers customers clients teammates guests roommates babies twins boys girls men women
    relatives bosses boss patients followers
""")
ADJECTIVES = _words("""
    old new big small large little good nice great poor rich young long short high low red blue green white black
    fresh free expensive cheap extra additional important beautiful pretty hot cold warm different special
    incorrect correct wrong bad false true secret detailed clear specific full same
""")
TIME_UNITS = _words("second seconds minute minutes hour hours day days week weeks month months year years")
NUMBER_WORDS = _words("""
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million dozen
    several many few more twice half double less
""")
PLACE_WORDS_BEFORE = _words("in at near the a an this that these those each every another brand")
# --- Groups of verbs by what may follow "her" ---------------------------------------------------------------
BUYING = _words(
    "buy buys bought buying make makes made making sell sells sold selling bake baked cook cooked"
)
TAKING = _words("take takes took taking taken last lasts lasted")
LET_NOUNS = _words(
    "hair dog dogs cat eyes hand hands head guard mother father friends friend kids children foot arm arms"
)
RESULTS = _words("""
    close tight free alive gone naked dead mad crazy nuts insane unconscious speechless awake captive hostage prisoner
    breathless senseless wrong bitter late
""")
PAST_VERBS = _words("""
    said spoke came went took gave told knew thought got began stood sat ran seemed wanted asked became kept brought
    wrote says goes comes seems
""")
ING_NOUNS = _words("""
    building wedding meeting clothing morning evening king ring thing string wing spring painting drawing ceiling
    earring training writing reading shopping feeling living stocking offspring bearing backing blessing housing
    funding beginning ending being lightning darling cooking baking cleaning washing gardening swimming parking
    dining sewing knitting earning saving spending driving breathing hearing hiding landing packing planning
    pudding racing recording running singing sibling setting seating sleeping boxing dancing fishing hunting hiking
    camping wording understanding upbringing opening ranking rating reasoning undertaking engineering nursing
    teaching marketing accounting banking trading walking working homecoming covering dressing filling frosting
    icing greeting helping lodging mooring offering outing posting pairing pricing rigging roofing sling swing king
    warning winning longing bidding acting modelling modeling directing voting skating skiing bowling riding
""")
LETTING = _words("let lets letting")
MAKING = _words("make makes made making")
MOVING = _words("""
    drive drives drove driving take takes took taking bring brings brought bringing send sends sent sending walk walks
    walked walking follow followed carry carried fly flew get gets got escort escorted accompany accompanied invite
    invited let
""")
CATCHING = _words("""
    see saw seen watch watched watching hear heard catch caught find found keep kept leave left notice noticed spot
    spotted remember remembered have has had stop stopped
""")
KEEPING = _words("keep keeps kept leave leaves left catch catches caught")
CALLING_BACK = _words(
    "call calls called calling text texted hit hits love loves loved want wants wanted ask asked"
)
BODY_BACK = _words("""
    on behind in against down hurt hurts broke injured strained strain scratched scratch turned turn turns stretch
    stretched washed across of up
""")
BACK_NOUNS = _words("""
    pain yard porch door pocket pockets seat problems injury surgery pack brace muscles garden pocketbook room tooth
    patio bedroom rent taxes
""")
KNOWING = _words(
    "know knows knew known treat treats treated serve serves served wish wishes wished suit suits fit"
)
MAY_MODIFY = _words("""
    forever always never ever even often sometimes overnight nearby later now still already once then earlier further
    faster
""")
ANIMALS = _words("cats dogs pets horses chickens puppies kittens cows animals birds rabbits goats pigs")
APPOINTING = _words(
    "elect elects elected appoint appoints appointed crown crowned declare declares declared vote voted"
)
NAMING = _words("call calls called calling name names named naming")
BESIDE = _words("beside around behind near above below beneath opposite under over against before after")
ACQUAINTANCES = _words("""
    friend friends colleague colleagues neighbor neighbors neighbour neighbours cousin cousins classmate classmates
    student students brother brothers sister sisters uncle aunt nephew niece teacher fan fans client clients coworker
    coworkers roommate roommates
""")
GREETINGS = _words("hello hi goodbye bye yes thanks congratulations sorry goodnight farewell")
